"""The engine on OpenVINO: equality with onnxruntime, compiled graphs, choice and fallback."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines import openvino as module
from runtime.engines.factory import open_engine
from runtime.engines.onnx_cpu import engine as onnx_engine
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.onnx_cpu.graph_cache import GraphCache
from runtime.engines.onnx_cpu.int8 import int8_is_exact
from runtime.engines.openvino import OpenVinoEngine
from runtime.errors import EngineFailed, EngineUnavailable
from runtime.model.bundle import Bundle, load_bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture
def installed(skip_or_fail: Callable[[str], NoReturn]) -> None:
    """Skip where OpenVINO is not installed, or the CPU has no exact int8 arithmetic."""
    if find_spec("openvino") is None:
        skip_or_fail("OpenVINO is not installed")
    if not int8_is_exact():
        pytest.skip("this CPU has neither VNNI nor AMX")


@pytest.fixture
def crops(bundle: Bundle) -> NDArray[np.uint8]:
    """Smooth images, whose features depend on the image more than those of noise."""
    size = bundle.input_size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, size // 16, size // 16, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


@pytest.mark.usefixtures("installed")
def test_features_are_close_to_those_of_onnxruntime(
    bundle: Bundle, crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    """The same graph gives the same features but for rounding, in batches and from several threads."""
    with OnnxRuntimeEngine(bundle, precision="int8") as engine:
        expected = engine.features(crops)
        windows = np.stack([expected])
        logits = engine.logits(windows)
    with OpenVinoEngine(bundle, threads=2, cache=GraphCache(tmp_path / "cache")) as engine:
        given = engine.features(crops)
        with ThreadPoolExecutor(4) as threads:
            alone = list(threads.map(lambda crop: engine.features(crop[None])[0], crops))
        np.testing.assert_allclose(alone, given, atol=1e-5)
        np.testing.assert_array_equal(engine.logits(windows), logits)
        assert engine.features(crops[:0]).shape == (0, bundle.feature_dim)
    assert np.linalg.norm(given - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.usefixtures("installed")
def test_a_compiled_graph_is_kept(
    bundle: Bundle, crops: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start loads the compiled graph; one that cannot be loaded is compiled again."""
    cache = GraphCache(tmp_path / "cache")
    with OpenVinoEngine(bundle, threads=1, cache=cache) as engine:
        first = engine.features(crops)
    compiled: list[int] = []
    compile_ = module._Backbone.compile

    def compile_again(graph: bytes, threads: int) -> module._Backbone:
        compiled.append(threads)
        return compile_(graph, threads)

    monkeypatch.setattr(module._Backbone, "compile", compile_again)
    with OpenVinoEngine(bundle, threads=1, cache=cache) as engine:
        np.testing.assert_array_equal(engine.features(crops), first)
    assert not compiled

    def broken(exported: bytes, threads: int) -> NoReturn:
        raise EngineFailed("openvino", "of another version")

    monkeypatch.setattr(module._Backbone, "load", broken)
    with OpenVinoEngine(bundle, threads=1, cache=cache) as engine:
        np.testing.assert_array_equal(engine.features(crops), first)
    assert compiled


@pytest.mark.usefixtures("installed")
def test_auto_continues_with_onnxruntime_if_openvino_fails(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto` chooses OpenVINO, and warns when it cannot compile the graph."""

    def failing(self: OpenVinoEngine, part: str, precision: str) -> NoReturn:
        raise EngineFailed("openvino", "unsupported operation")

    monkeypatch.setattr(OpenVinoEngine, "_load", failing)
    with caplog.at_level(logging.INFO, logger="runtime.engines"), open_engine(bundle) as engine:
        assert engine.name == "onnxruntime"
        assert engine.describe().startswith("onnxruntime")
    chosen, warned = caplog.messages
    assert chosen.startswith("engine: openvino ")
    assert "unsupported operation" in warned


def test_it_is_refused_where_it_cannot_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the advice is to install it; without exact int8 sums, to use onnxruntime."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"not installed; pip install 'unmask\[openvino\]'"):
        open_engine(bundle, "openvino")
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(onnx_engine, "int8_is_exact", lambda: False)
    with pytest.raises(EngineUnavailable, match="a CPU with VNNI or AMX; use --engine onnxruntime"):
        open_engine(bundle, "openvino")


@pytest.mark.usefixtures("installed")
def test_the_first_calls_may_come_from_several_threads(tmp_path: Path) -> None:
    """OpenVINO's binding for Python would deadlock; only the first calls of a process do."""
    script = """
import sys, threading
import numpy as np
from runtime.engines.openvino import OpenVinoEngine
from runtime.model.bundle import load_bundle
sys.setswitchinterval(1e-6)
bundle = load_bundle()
crops = np.zeros((4, bundle.input_size, bundle.input_size, 3), np.uint8)
with OpenVinoEngine(bundle, threads=4) as engine:
    threads = [threading.Thread(target=engine.features, args=(crops,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
    environment = {**os.environ, "UNMASK_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, timeout=60)
