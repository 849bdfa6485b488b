"""CUDA graphs of recurring shapes, on a stand-in for a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.runner import MAX_CUDA_GRAPHS
from runtime.errors import DeviceMemoryFull, EngineFailed
from runtime.model.bundle import Bundle
from tests.support import fake_gpu


@pytest.mark.parametrize("generation", ["8.6", "10", "11"])
def test_recurring_shapes_are_replayed(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
    driver: fake_gpu.CudaDriver,
    generation: str,
) -> None:
    """From its third run on, a batch is one graph launch that reads new crops and writes their features."""
    with make(generation, cuda_graphs=True) as engine:
        for time in range(4):
            assert driver.launched == 2 * max(0, time - 2)
            for count in (2, 5):
                part = slice(time, time + count)
                np.testing.assert_allclose(
                    engine.features(crops[part]), reference[part], rtol=1e-4, atol=1e-4
                )
        assert driver.graphs == 2
        assert engine.inspect()["backbone"]["cuda_graphs"] == "own"
    assert driver.graphs == 0


def test_windows_that_fill_are_not_captured(
    make: Callable[..., TensorRTEngine], small: Bundle, driver: fake_gpu.CudaDriver
) -> None:
    """Each length below the full window comes once per face; only full windows recur."""
    with make(cuda_graphs=True) as engine:
        for _ in range(4):
            for length in range(small.min_frames, small.window + 1):
                engine.logits(np.zeros((1, length, small.feature_dim), np.float32))
        assert driver.graphs == 1


@pytest.mark.parametrize(("code", "kind"), [(2, DeviceMemoryFull), (1, EngineFailed)])
def test_refused_launch_is_reported(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    driver: fake_gpu.CudaDriver,
    code: int,
    kind: type[EngineFailed],
) -> None:
    """A full GPU and a failed launch raise different errors."""
    with make(cuda_graphs=True) as engine:
        for _ in range(3):
            engine.features(crops[:1])
        driver.launch_code = code
        with pytest.raises(EngineFailed) as caught:
            engine.features(crops[:1])
    assert type(caught.value) is kind


def test_number_of_graphs_is_limited(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], driver: fake_gpu.CudaDriver
) -> None:
    """Each graph takes memory; beyond the limit, batch sizes run without a graph."""
    with make(cuda_graphs=True) as engine:
        for count in range(1, MAX_CUDA_GRAPHS + 4):
            for _ in range(3):
                engine.features(crops[:count])
        assert driver.graphs == MAX_CUDA_GRAPHS


def test_engine_runs_without_graphs_if_capture_fails(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
    driver: fake_gpu.CudaDriver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The outputs stay the same, and one line is logged."""
    driver.capture_code = 901
    with caplog.at_level(logging.INFO), make(cuda_graphs=True) as engine:
        for _ in range(5):
            np.testing.assert_allclose(engine.features(crops[:3]), reference[:3], rtol=1e-4, atol=1e-4)
        assert engine.inspect()["backbone"]["cuda_graphs"] == "none"
    assert len([line for line in caplog.messages if "no CUDA graphs: the driver returns 901" in line]) == 1
    assert driver.launched == 0


def test_captured_graphs_survive_a_failed_capture(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: NDArray[np.float32],
    driver: fake_gpu.CudaDriver,
) -> None:
    """A shape that cannot be captured leaves the graphs of other shapes in use."""
    with make(cuda_graphs=True) as engine:
        for count, code in ((2, 0), (3, 901)):
            driver.capture_code = code
            for _ in range(3):
                engine.features(crops[:count])
        launched = driver.launched
        for count in (2, 3, 4, 4, 4):
            np.testing.assert_allclose(
                engine.features(crops[:count]), reference[:count], rtol=1e-4, atol=1e-4
            )
        assert driver.launched == launched + 1
        assert driver.graphs == 1
        assert engine.inspect()["backbone"]["cuda_graphs"] == "own"
    assert driver.graphs == 0
