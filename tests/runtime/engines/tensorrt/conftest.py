"""A small bundle, a stand-in for a GPU, and reference outputs of onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.engines.tensorrt.builder import MAX_BATCH
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.model.bundle import Bundle, load_bundle
from tests.support import fake_gpu


@pytest.fixture
def small(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> fake_gpu.Cuda:
    fake_gpu.install(monkeypatch)
    return fake_gpu.Cuda()


@pytest.fixture
def driver() -> fake_gpu.CudaDriver:
    return fake_gpu.CudaDriver()


@pytest.fixture
def make(
    small: Bundle, cuda: fake_gpu.Cuda, driver: fake_gpu.CudaDriver, tmp_path: Path
) -> Callable[..., TensorRTEngine]:
    """Return `make(generation, **options)`, which creates an engine on the stand-in."""

    def make(trt: str | fake_gpu.Trt = "10", **options: Any) -> TensorRTEngine:
        return TensorRTEngine(
            small,
            cache=EngineCache(tmp_path / "cache"),
            trt=fake_gpu.Trt(trt) if isinstance(trt, str) else trt,
            cuda=cuda,
            cuda_driver=driver,
            gpu=fake_gpu.GPU,
            **{"precision": "fp32", "cuda_graphs": False, **options},
        )

    return make


@pytest.fixture
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (2 * MAX_BATCH + 9, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def reference(small: Bundle, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features of the crops from onnxruntime."""
    with open_engine(small, "onnxruntime", threads=1) as engine:
        return engine.features(crops)
