"""The TensorRT engine on a stand-in for a GPU: the numbers of onnxruntime, and errors with their reasons."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.engines.fallback import FallbackEngine
from runtime.engines.interface import Engine
from runtime.engines.tensorrt.builder import MAX_BATCH
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.errors import DeviceLost, DeviceMemoryFull, EngineFailed, EngineUnavailable
from runtime.model.bundle import Bundle
from tests.support import fake_gpu

GENERATIONS = ("8.6", "10", "11", "rtx")


def windows_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([features[i : i + 6] for i in range(MAX_BATCH + 3)])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_outputs_match_onnxruntime(
    make: Callable[..., TensorRTEngine],
    small: Bundle,
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
    cuda: fake_gpu.Cuda,
    generation: str,
) -> None:
    """Every generation of TensorRT gives the same numbers for all batch sizes and frees all memory."""
    with make(generation) as engine:
        assert isinstance(engine, Engine)
        for count in (1, 3, MAX_BATCH, len(crops)):
            np.testing.assert_allclose(
                engine.features(crops[:count]), reference[:count], rtol=1e-4, atol=1e-4
            )
        with open_engine(small, "onnxruntime", threads=1) as other:
            logits = other.logits(windows_of(reference))
        np.testing.assert_allclose(engine.logits(windows_of(reference)), logits, rtol=1e-4, atol=1e-4)
        assert engine.features(crops[:0]).shape == (0, 16)
        assert engine.logits(np.empty((0, 4, 16), np.float32)).shape == (0,)
        assert cuda.retained == 1
    assert cuda.allocations == {}
    assert cuda.free_bytes == 1 << 30
    assert (cuda.retained, cuda.depth) == (0, 0)
    with pytest.raises(RuntimeError, match="closed"):
        engine.features(crops[:1])


def test_memory_is_allocated_once(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], cuda: fake_gpu.Cuda
) -> None:
    """No batch, however large, allocates more than opening did."""
    with make() as engine:
        free, owned = cuda.free_bytes, len(cuda.allocations)
        for count in (len(crops), 1, MAX_BATCH):
            engine.features(crops[:count])
        assert (cuda.free_bytes, len(cuda.allocations)) == (free, owned)


def test_fp16_features_stay_close(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
) -> None:
    """Float16 convolutions change a feature by less than a hundredth of the largest."""
    with make(precision="fp16") as engine:
        features = engine.features(crops[:8])
    difference = np.abs(features - reference[:8]).max()
    assert 1e-6 < difference < 1e-2 * np.abs(reference).max()


def test_invalid_input_is_refused(make: Callable[..., TensorRTEngine]) -> None:
    """The engine applies the checks that all engines share."""
    with make() as engine:
        with pytest.raises(ValueError, match=r"crops must be uint8 \(N, 32, 32, 3\)"):
            engine.features(np.zeros((1, 3, 32, 32), np.uint8))
        with pytest.raises(ValueError, match="windows must hold 4 to 8 samples, not 3"):
            engine.logits(np.zeros((1, 3, 16), np.float32))
        with pytest.raises(EngineFailed, match="not finite"):
            engine.logits(np.full((1, 4, 16), np.nan, np.float32))
        with pytest.raises(RuntimeError, match="open already"), engine:
            pass


def test_threads_get_their_own_outputs(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
) -> None:
    """Buffers are shared between calls; a lock keeps the callers apart."""
    outputs: dict[int, NDArray[np.float32]] = {}
    with make() as engine:

        def work(i: int) -> None:
            for _ in range(5):
                outputs[i] = engine.features(crops[i : i + 4])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, output in outputs.items():
        np.testing.assert_allclose(output, reference[i : i + 4], rtol=1e-4, atol=1e-4)


def test_full_gpu_raises_device_memory_full(make: Callable[..., TensorRTEngine], cuda: fake_gpu.Cuda) -> None:
    """Memory that was allocated before the failure is freed."""
    cuda.free_bytes = before = 100_000
    with pytest.raises(DeviceMemoryFull, match=r"memory is full.*; stop other programs on the GPU"):
        make().__enter__()
    assert cuda.free_bytes == before
    assert (cuda.allocations, cuda.retained, cuda.depth) == ({}, 0, 0)


def test_lost_gpu_raises_device_lost(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], cuda: fake_gpu.Cuda
) -> None:
    """Every later call fails too, and the engine can still be closed."""
    with make() as engine:
        engine.features(crops[:1])
        cuda.lost = True
        for _ in range(2):
            with pytest.raises(DeviceLost, match=r"stopped responding .*; restart"):
                engine.features(crops[:1])


def test_rtx_captures_cuda_graphs_itself(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8]
) -> None:
    """The engine only sets the strategy: TensorRT-RTX knows when its kernels are compiled."""
    trt = fake_gpu.Trt("rtx")
    with make(trt, cuda_graphs=True) as engine:
        engine.features(crops[:1])
        assert engine.inspect()["head"]["cuda_graphs"] == "native"
    assert trt.calls.runtime_config is not None
    assert trt.calls.runtime_config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("CUDA out of memory in enqueue", DeviceMemoryFull), ("Shape inference failed.", EngineFailed)],
)
def test_error_carries_the_reason_from_the_log(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], reason: str, kind: type[EngineFailed]
) -> None:
    """TensorRT only returns false; the reason is in its log."""
    trt = fake_gpu.Trt("10")
    with make(trt) as engine:
        trt.calls.execution_error = reason
        with pytest.raises(EngineFailed, match=reason.rstrip(".")) as caught:
            engine.features(crops[:1])
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("CUDA initialization failure with error: 35.", EngineUnavailable),
        ("CUDA initialization failure with error: 2.", DeviceMemoryFull),
    ],
)
def test_driver_that_does_not_fit_is_reported(
    make: Callable[..., TensorRTEngine], reason: str, kind: type[Exception]
) -> None:
    """TensorRT creates no builder and logs a warning; that becomes an engine error, which `auto` handles."""
    trt = fake_gpu.Trt("10")
    trt.calls.no_driver = reason
    with pytest.raises(kind, match=reason.rstrip(".")), make(trt):
        pass


def test_rejected_engine_is_rebuilt(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    """TensorRT may reject an engine whose key fits; the engine is then built once more."""
    trt = fake_gpu.Trt("10")
    with make(trt):
        pass
    assert trt.calls.builds == 2
    metadata = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert [item["summary"]["inspected"]["formats"] for item in metadata] == [{"Half": 1}] * 2
    trt.calls.rejected = [path.read_bytes() for path in tmp_path.rglob("backbone*.engine")]
    with make(trt) as engine:
        engine.features(crops[:1])
    assert trt.calls.builds == 4


def test_auto_falls_back_to_the_cpu(
    make: Callable[..., TensorRTEngine],
    small: Bundle,
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
    cuda: fake_gpu.Cuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """onnxruntime computes the call that finds the GPU lost, and one warning gives the reason."""
    engine = FallbackEngine(make(), lambda: open_engine(small, "onnxruntime", threads=1))
    with engine:
        assert "Pretend 9000" in engine.describe()
        engine.features(crops[:2])
        cuda.lost = True
        for _ in range(2):
            np.testing.assert_allclose(engine.features(crops[:2]), reference[:2], rtol=1e-4, atol=1e-4)
        engine.logits(windows_of(reference))
        assert engine.name == "onnxruntime"
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "on the CPU, 1 thread from now on" in line
    assert "stopped responding" in line


def test_auto_starts_on_the_cpu_if_the_gpu_is_full(
    make: Callable[..., TensorRTEngine], small: Bundle, crops: NDArray[np.uint8], cuda: fake_gpu.Cuda
) -> None:
    """A GPU that cannot be opened is replaced; invalid input is still refused."""
    cuda.free_bytes = 1000
    with FallbackEngine(make(), lambda: open_engine(small, "onnxruntime", threads=1)) as engine:
        assert engine.features(crops[:2]).shape == (2, 16)
        assert engine.name == "onnxruntime"
        with pytest.raises(ValueError, match="crops must be"):
            engine.features(crops[0])
        with pytest.raises(EngineFailed, match="not finite"):
            engine.logits(np.full((1, 4, 16), np.nan, np.float32))
