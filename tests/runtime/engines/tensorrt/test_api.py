"""The members in the protocols exist in the real modules."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from runtime.engines.tensorrt import api
from runtime.engines.tensorrt.library import load_tensorrt
from runtime.errors import EngineUnavailable

# Members that TensorRT-RTX lacks and that the engine checks for before use.
OTHER_VERSIONS = {"FP16", "EXPLICIT_BATCH", "CUDNN", "device_memory_size"}
OTHER_VERSIONS |= {"create_execution_context_without_device_memory", "get_engine_validity"}
OTHER_VERSIONS |= {"PROFILE_SHARING_0806", "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"}

CLASSES = {
    api.ITensor: "ITensor",
    api.INetworkDefinition: "INetworkDefinition",
    api.IParser: "OnnxParser",
    api.IParserError: "ParserError",
    api.IBuilder: "Builder",
    api.IBuilderConfig: "IBuilderConfig",
    api.IOptimizationProfile: "IOptimizationProfile",
    api.ITimingCache: "ITimingCache",
    api.IRuntime: "Runtime",
    api.IRuntimeCache: "IRuntimeCache",
    api.IRuntimeConfig: "IRuntimeConfig",
    api.IEngineInspector: "EngineInspector",
    api.ICudaEngine: "ICudaEngine",
    api.IExecutionContext: "IExecutionContext",
    api.Severities: "ILogger.Severity",
    api.BuilderFlags: "BuilderFlag",
    api.NetworkFlags: "NetworkDefinitionCreationFlag",
    api.TacticSources: "TacticSource",
    api.PreviewFeatures: "PreviewFeature",
    api.MemoryPools: "MemoryPoolType",
    api.ProfilingVerbosities: "ProfilingVerbosity",
    api.HardwareCompatibilityLevels: "HardwareCompatibilityLevel",
    api.TensorIOModes: "TensorIOMode",
    api.LayerInformationFormats: "LayerInformationFormat",
    api.AllocationStrategies: "ExecutionContextAllocationStrategy",
    api.CudaGraphStrategies: "CudaGraphStrategy",
    api.EngineValidities: "EngineValidity",
}


def members(protocol: type) -> set[str]:
    own = {name for name in vars(protocol) if not name.startswith("_")}
    return own | set(getattr(protocol, "__annotations__", {}))


@pytest.fixture(scope="module")
def rtx(skip_or_fail: Callable[[str], NoReturn]) -> api.TensorRT:
    try:
        return load_tensorrt(("tensorrt_rtx", "tensorrt_rtx_bindings"))
    except EngineUnavailable as error:
        skip_or_fail(f"{error.reason}; install tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings")


def test_tensorrt_rtx_has_the_members_of_the_module(rtx: api.TensorRT) -> None:
    """Every class and enumeration in use exists."""
    assert {name for name in members(api.TensorRT) if not hasattr(rtx, name)} == set()


@pytest.mark.parametrize(("protocol", "name"), CLASSES.items())
def test_tensorrt_rtx_has_the_members_of_each_class(rtx: api.TensorRT, protocol: type, name: str) -> None:
    """Only members of other versions may be missing."""
    real: Any = rtx
    for part in name.split("."):
        real = getattr(real, part)
    assert {member for member in members(protocol) if not hasattr(real, member)} <= OTHER_VERSIONS


def test_cuda_bindings_has_the_calls_in_use(skip_or_fail: Callable[[str], NoReturn]) -> None:
    """CUDA graphs need the driver API of cuda-bindings."""
    try:
        module = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        skip_or_fail("cuda-bindings is not installed")
    assert {name for name in members(api.CudaDriver) if not hasattr(module, name)} == set()
    assert members(api.CaptureModes) <= set(dir(module.CUstreamCaptureMode))
