"""Engines built by TensorRT-RTX from the bundled model, and build options of every TensorRT generation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from runtime.engines.tensorrt.api import TensorRT
from runtime.engines.tensorrt.builder import (
    MAX_BATCH,
    OptimizationProfile,
    build,
    build_target,
    count_layers,
    input_profile,
    load_or_build_engines,
)
from runtime.engines.tensorrt.engine_cache import EngineCache
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
def rtx(skip_or_fail: Callable[[str], NoReturn]) -> TensorRT:
    try:
        return load_tensorrt(RTX)
    except EngineUnavailable as error:
        skip_or_fail(f"{error.reason}; install tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bundled_model_is_built(bundle: Bundle, rtx: TensorRT, tmp_path: Path, precision: Precision) -> None:
    """TensorRT-RTX parses and builds both graphs with the specified types and dynamic axes."""
    cache = EngineCache(tmp_path)
    engines = load_or_build_engines(bundle, precision=precision, cache=cache, trt=rtx)
    for part, input_tensor, output_tensor in (
        ("backbone", "crops uint8 (-1, 112, 112, 3)", "features float (-1, 2048)"),
        ("head", "features float (-1, -1, 2048)", "logit float (-1,)"),
    ):
        key, engine = engines[part]
        metadata = json.loads(cache.path(key).with_suffix(".json").read_text())
        assert metadata["summary"]["inputs"] == [input_tensor.replace("112", str(bundle.input_size))]
        assert metadata["summary"]["outputs"] == [output_tensor]
        assert metadata["summary"]["layers_parsed"] > 50
        assert metadata["key"]["library"] == library_name(rtx)
        # The engine holds the weights in its precision.
        weights = len(rewrite_graph(getattr(bundle, part).read_bytes(), precision))
        assert 0.9 * weights < len(engine) < 1.3 * weights
        assert cache.load(key) == engine
    # The second call builds nothing.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
    assert load_or_build_engines(bundle, precision=precision, cache=cache, trt=rtx) == engines
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")} == times


def test_build_failure_is_reported(small_bundle: Path, rtx: TensorRT) -> None:
    """The message is one line with TensorRT's reason."""
    small = load_bundle(small_bundle)
    profile = input_profile(small, "backbone")
    with pytest.raises(EngineUnavailable, match=r"TensorRT-RTX .* cannot parse the backbone: ") as caught:
        build(rtx, b"no model", profile, part="backbone", fp16=False)
    assert "\n" not in str(caught.value)
    graph = rewrite_graph(small.backbone.read_bytes(), "fp32")
    impossible = OptimizationProfile((1, 32, 32, 5), (1, 32, 32, 5), (1, 32, 32, 5))
    with pytest.raises(EngineUnavailable, match=r"TensorRT-RTX .* (rejects the shapes|cannot build)"):
        build(rtx, graph, impossible, part="backbone", fp16=False)


def test_profile_follows_the_model(bundle: Bundle) -> None:
    """The shapes range from one crop or window to `MAX_BATCH`, from the shortest window to the full one."""
    crop, dim = (bundle.input_size, bundle.input_size, 3), bundle.feature_dim
    assert input_profile(bundle, "backbone") == OptimizationProfile(
        (1, *crop), (8, *crop), (MAX_BATCH, *crop)
    )
    head = input_profile(bundle, "head")
    assert head.min == (1, bundle.min_frames, dim)
    assert head.max == (MAX_BATCH, bundle.window, dim)
    assert input_profile(bundle, "backbone", max_batch=4).opt == (4, *crop)


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
def test_each_generation_gets_its_own_options(
    small_bundle: Path, tmp_path: Path, generation: str, precision: Precision, flags: set[str]
) -> None:
    """FP16 is set only without strong typing, TF32 is off in fp32, and external kernels are excluded."""
    trt = fake_gpu.Trt(generation)
    small = load_bundle(small_bundle)
    timing = tmp_path / "timing.cache"
    for _ in range(2):
        build(
            trt,
            rewrite_graph(small.backbone.read_bytes(), precision),
            input_profile(small, "backbone"),
            part="backbone",
            fp16=precision == "fp16",
            hardware_compatible=True,
            timing_cache=timing,
        )
    assert trt.calls.flags == flags
    config = trt.calls.config
    assert config is not None
    assert config.profiling_verbosity.name == "DETAILED"
    if generation == "rtx":
        assert not timing.exists()
        assert not hasattr(config, "hardware_compatibility_level")
    else:
        assert timing.read_bytes() == fake_gpu.TIMING_CACHE
        assert config.timing_cache == fake_gpu.TimingCache(fake_gpu.TIMING_CACHE)
        assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    if generation in ("8.6", "10"):
        own = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        assert trt.calls.tactic_sources == sum(1 << int(source) for source in own)
    assert bool(trt.calls.preview_features) == (generation == "8.6")


def test_foreign_timing_cache_is_replaced(small_bundle: Path, tmp_path: Path) -> None:
    """Timings of another GPU would select the wrong kernels."""
    timing = tmp_path / "timing.cache"
    timing.write_bytes(b"of another GPU")
    small = load_bundle(small_bundle)
    graph = rewrite_graph(small.head.read_bytes(), "fp32")
    profile = input_profile(small, "head")
    build(fake_gpu.Trt("10"), graph, profile, part="head", fp16=False, timing_cache=timing)
    assert timing.read_bytes() == fake_gpu.TIMING_CACHE


def test_target_names_gpu_and_architecture() -> None:
    """Engines are built for one GPU, for a set of GPUs, or for any GPU of TensorRT-RTX."""
    trt = fake_gpu.Trt("10")
    assert build_target(trt, fake_gpu.GPU, hardware_compatible=False) == "Pretend 9000 sm_90"
    assert build_target(trt, fake_gpu.GPU, hardware_compatible=True) == "any GPU from sm_80 on"
    rtx = fake_gpu.Trt("rtx")
    assert is_rtx(rtx)
    assert "RTX" in build_target(rtx, None, hardware_compatible=False)
    with pytest.raises(ValueError, match="none was given"):
        build_target(trt, None, hardware_compatible=False)


def test_layers_are_counted() -> None:
    """The inspector's output is counted with details, without, with bare control characters, and if empty."""
    layers = [
        {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC"}]},
        {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC"}]},
        {"LayerType": "Reduce", "Outputs": [{"Datatype": "Float"}]},
        # TensorRT 11
        {"LayerType": "Reduce", "Outputs": [{"Name": "mean", "Format": "Row major", "DataType": "Float"}]},
    ]
    assert count_layers(json.dumps({"Layers": layers})) == {
        "layers": 4,
        "kinds": {"CaskConvolution": 2, "Reduce": 2},
        "formats": {"Half NHWC": 2, "Float": 1, "Row major, Float": 1},
    }
    assert count_layers(json.dumps({"Layers": ["conv1", "conv2"]}))["layers"] == 2
    merged = json.dumps({"Layers": [{"LayerType": "CaskConvolution", "Metadata": "[conv]|[relu]"}]})
    assert count_layers(merged.replace("|", "\x1e")) == {
        "layers": 1,
        "kinds": {"CaskConvolution": 1},
        "formats": {},
    }
    assert count_layers("") == {}
