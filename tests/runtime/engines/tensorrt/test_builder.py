"""Real engines, built on the CPU by TensorRT-RTX from the bundled model; and what the cache gives back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from runtime.engines.tensorrt.builder import (
    MAX_BATCH,
    OptimizationProfile,
    build,
    build_target,
    count_layers,
    input_profile,
    load_or_build_engines,
)
from runtime.engines.tensorrt.engine_cache import EngineCache, EngineKey, cache_dir
from runtime.engines.tensorrt.library import is_rtx, library_name, load_tensorrt
from runtime.engines.tensorrt.onnx_rewrite import PRECISIONS, Precision, rewrite_graph
from runtime.errors import EngineUnavailable
from runtime.model.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from tests.support import fake_gpu

RTX = ("tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


@pytest.fixture(scope="module")
def rtx(skip_or_fail: Callable[[str], NoReturn]) -> Any:
    try:
        return load_tensorrt(RTX)
    except EngineUnavailable as error:
        skip_or_fail(f"{error.reason}; install tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bundled_model_is_built(bundle: Bundle, rtx: Any, tmp_path: Path, precision: Precision) -> None:
    """TensorRT's own parser and builder take both graphs, with the types and free axes that were agreed."""
    cache = EngineCache(tmp_path)
    engines = load_or_build_engines(bundle, precision=precision, cache=cache, trt=rtx)
    for part, taken, given in (
        ("backbone", "crops uint8 (-1, 112, 112, 3)", "features float (-1, 2048)"),
        ("head", "features float (-1, -1, 2048)", "logit float (-1,)"),
    ):
        key, engine = engines[part]
        card = json.loads(cache.path(key).with_suffix(".json").read_text())
        assert card["summary"]["inputs"] == [taken.replace("112", str(bundle.input_size))]
        assert card["summary"]["outputs"] == [given]
        assert card["summary"]["layers_parsed"] > 50
        assert card["key"]["library"] == library_name(rtx)
        # The weights are inside, in the precision's size.
        weights = len(rewrite_graph(getattr(bundle, part).read_bytes(), precision))
        assert 0.9 * weights < len(engine) < 1.3 * weights
        assert cache.load(key) == engine
    # The second time nothing is built.
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
    assert load_or_build_engines(bundle, precision=precision, cache=cache, trt=rtx) == engines
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")} == stamps


def test_what_cannot_be_parsed_or_built_is_named(small_bundle: Path, rtx: Any) -> None:
    """One line, with what TensorRT said."""
    small = load_bundle(small_bundle)
    profile = input_profile(small, "backbone")
    with pytest.raises(EngineUnavailable, match=r"TensorRT-RTX .* cannot parse the backbone: ") as caught:
        build(rtx, b"no model", profile, part="backbone", half=False)
    assert "\n" not in str(caught.value)
    graph = rewrite_graph(small.backbone.read_bytes(), "fp32")
    wrong = OptimizationProfile((1, 32, 32, 5), (1, 32, 32, 5), (1, 32, 32, 5))
    with pytest.raises(EngineUnavailable, match=r"TensorRT-RTX .* (refuses the shapes|cannot build)"):
        build(rtx, graph, wrong, part="backbone", half=False)


def test_the_shapes_are_the_models(bundle: Bundle) -> None:
    """From a lone face up to a full house; from the shortest window to the whole one."""
    crop, dim = (bundle.input_size, bundle.input_size, 3), bundle.feature_dim
    assert input_profile(bundle, "backbone") == OptimizationProfile(
        (1, *crop), (8, *crop), (MAX_BATCH, *crop)
    )
    head = input_profile(bundle, "head")
    assert head.smallest == (1, bundle.min_frames, dim)
    assert head.largest == (MAX_BATCH, bundle.window, dim)
    assert input_profile(bundle, "backbone", most_batch=4).best == (4, *crop)


@pytest.mark.parametrize(
    ("generation", "precision", "flags"),
    [
        ("8.6", "fp16", {"FP16", "TF32"}),
        ("8.6", "fp32", set()),
        ("10", "fp16", {"TF32"}),
        ("10", "fp32", set()),
        ("11", "fp16", {"TF32"}),
        ("rtx", "fp32", set()),
    ],
)
def test_each_generation_is_asked_for_what_it_has(
    small_bundle: Path, tmp_path: Path, generation: str, precision: Precision, flags: set[str]
) -> None:
    """Half is allowed where there is no strong typing; fp32 has no ten-bit factors; no outside kernels."""
    trt = fake_gpu.Trt(generation)
    small = load_bundle(small_bundle)
    timing = tmp_path / "timing.cache"
    for _ in range(2):
        build(
            trt,
            rewrite_graph(small.backbone.read_bytes(), precision),
            input_profile(small, "backbone"),
            part="backbone",
            half=precision == "fp16",
            hardware_compatible=True,
            timing=timing,
        )
    assert trt.seen["flags"] == flags
    config = trt.seen["config"]
    assert config.profiling_verbosity.name == "DETAILED"
    if generation == "rtx":
        assert not timing.exists()
        assert not hasattr(config, "hardware_compatibility_level")
    else:
        assert timing.read_bytes() == config.timing.content == b"timed"
        assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    if generation in ("8.6", "10"):
        own = trt.TacticSource
        assert trt.seen["tactics"] == 1 << own.EDGE_MASK_CONVOLUTIONS | 1 << own.JIT_CONVOLUTIONS
    assert bool(trt.seen["previews"]) == (generation == "8.6")


def test_a_foreign_timing_cache_is_replaced(small_bundle: Path, tmp_path: Path) -> None:
    """Another GPU's timings would choose the wrong kernels."""
    timing = tmp_path / "timing.cache"
    timing.write_bytes(b"of another GPU")
    small = load_bundle(small_bundle)
    graph = rewrite_graph(small.head.read_bytes(), "fp32")
    build(fake_gpu.Trt("10"), graph, input_profile(small, "head"), part="head", half=False, timing=timing)
    assert timing.read_bytes() == b"timed"


def test_an_engine_is_for_one_target() -> None:
    """A GPU's name alone does not tell its architecture; RTX engines are finished on the card."""
    trt = fake_gpu.Trt("10")
    assert build_target(trt, fake_gpu.GPU, hardware_compatible=False) == "Pretend 9000 sm_90"
    assert build_target(trt, fake_gpu.GPU, hardware_compatible=True) == "any GPU from sm_80 on"
    rtx = fake_gpu.Trt("rtx")
    assert is_rtx(rtx)
    assert "RTX" in build_target(rtx, None, hardware_compatible=False)
    with pytest.raises(ValueError, match="none was given"):
        build_target(trt, None, hardware_compatible=False)


@pytest.fixture
def key() -> EngineKey:
    return EngineKey(
        digest="ab" * 32,
        part="backbone",
        precision="fp16",
        library="TensorRT 10.9.0",
        target="Pretend 9000 sm_90",
        shapes=((1, 2), (8, 2), (64, 2)),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "cd" * 32},
        {"part": "head"},
        {"precision": "fp32"},
        {"library": "TensorRT 10.9.1"},
        {"target": "Pretend 9000 sm_80"},
        {"shapes": ((1, 2), (8, 2), (32, 2))},
        {"graphs": 0},
        {"recipe": 0},
    ],
)
def test_anything_else_is_another_engine(tmp_path: Path, key: EngineKey, change: dict[str, Any]) -> None:
    """Whatever the engine depends on leads to another file, and the file of one is never read for another."""
    cache = EngineCache(tmp_path)
    cache.store(key, b"machine code", {})
    other = replace(key, **change)
    assert cache.path(other) != cache.path(key)
    assert cache.load(other) is None
    assert cache.load(key) == b"machine code"


def test_a_foreign_or_damaged_file_is_not_used(
    tmp_path: Path, key: EngineKey, caplog: pytest.LogCaptureFixture
) -> None:
    """Put in place by hand, cut short, changed, or with a card that cannot be read: each is built again."""
    cache = EngineCache(tmp_path)
    other = replace(key, target="Pretend 8000 sm_89")
    cache.store(other, b"for another card", {})
    for suffix in (".engine", ".json"):
        cache.path(other).with_suffix(suffix).rename(cache.path(key).with_suffix(suffix))
    assert cache.load(key) is None
    cache.store(key, b"machine code", {"seconds": 1})
    cache.path(key).write_bytes(b"machine")
    assert cache.load(key) is None
    cache.path(key).with_suffix(".json").write_text("[")
    assert cache.load(key) is None
    words = ("built for something else", "changed or cut short", "cannot be read")
    for word, record in zip(words, caplog.records, strict=True):
        assert word in record.message
        assert record.levelno == logging.WARNING
    cache.discard(key)
    assert list(cache.folder(key.digest).iterdir()) == []


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own variable, the desktop's, or the home directory; nobody else may write there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNMASK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache/unmask"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg/unmask"
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, key: EngineKey) -> None:
    """With the variable that moves it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineUnavailable, match=r"cannot be written .*UNMASK_CACHE"):
        EngineCache(tmp_path / "file").store(key, b"", {})


def test_only_a_whole_tensorrt_is_taken() -> None:
    """The next module is tried; of several that are broken, the first is told of."""

    def load(name: str) -> Any:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.10: cannot open shared object file")
        if name == "tensorrt_rtx":
            raise ModuleNotFoundError("No module", name=name)
        return name

    assert load_tensorrt(load=load) == "tensorrt_rtx_bindings"
    with pytest.raises(EngineUnavailable, match=r"tensorrt cannot be loaded \(libnvinfer.*extra `tensorrt`"):
        load_tensorrt(("tensorrt", "tensorrt_rtx"), load)
    with pytest.raises(EngineUnavailable, match="TensorRT is not installed"):
        load_tensorrt(("tensorrt_rtx",), load)


def test_the_inspectors_list_is_counted() -> None:
    """With details, without, and where there is nothing to read."""
    layers = [
        {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC"}]},
        {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC"}]},
        {"LayerType": "Reduce", "Outputs": [{"Datatype": "Float"}]},
    ]
    assert count_layers(json.dumps({"Layers": layers})) == {
        "layers": 3,
        "kinds": {"CaskConvolution": 2, "Reduce": 1},
        "formats": {"Half NHWC": 2, "Float": 1},
    }
    assert count_layers(json.dumps({"Layers": ["conv1", "conv2"]}))["layers"] == 2
    assert count_layers("") == {}
