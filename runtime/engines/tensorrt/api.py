"""Protocols of TensorRT, `pycuda.driver`, `cuda.bindings.driver` and libcuda, limited to the members in use.

These libraries have no type hints, and pycuda cannot be imported without a driver. Handles that are only
passed on are `Any`. mypy checks the callers and the tests' fake GPU (`tests/support/fake_gpu.py`) against the
protocols; a test compares the protocols with the TensorRT-RTX package.

TensorRT 8.6, 10, 11 and TensorRT-RTX share these protocols. A comment names the versions that have a member
if not all do; callers check for such a member with `hasattr`.

Source:
    NVIDIA TensorRT Python API reference, versions 8.6, 10 and 11; TensorRT-RTX Python API reference; pycuda
    reference, "Device interface"; cuda-python reference, "driver".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, SupportsInt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

# ---- TensorRT ----------------------------------------------------------------------------------------------


class EnumMember(Protocol):
    """Member of a TensorRT enumeration."""

    @property
    def name(self) -> str: ...

    def __int__(self) -> int: ...


class Severities(Protocol):
    """`ILogger.Severity`: the lower the number, the more severe."""

    ERROR: EnumMember
    WARNING: EnumMember


class BuilderFlags(Protocol):
    """`BuilderFlag`."""

    TF32: EnumMember
    # TensorRT 8.6 and 10.
    FP16: EnumMember


class NetworkFlags(Protocol):
    """`NetworkDefinitionCreationFlag`."""

    # TensorRT 8.6.
    EXPLICIT_BATCH: EnumMember
    # TensorRT 10, 11 and TensorRT-RTX.
    STRONGLY_TYPED: EnumMember


class TacticSources(Protocol):
    """`TacticSource`: the libraries that the builder takes kernels from."""

    # TensorRT 8.6 and 10.
    CUDNN: EnumMember


class PreviewFeatures(Protocol):
    """`PreviewFeature`."""

    # TensorRT 8.6 and 10.
    PROFILE_SHARING_0806: EnumMember
    # TensorRT 8.6.
    DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805: EnumMember


class MemoryPools(Protocol):
    """`MemoryPoolType`."""

    WORKSPACE: EnumMember


class ProfilingVerbosities(Protocol):
    """`ProfilingVerbosity`."""

    NONE: EnumMember
    DETAILED: EnumMember


class HardwareCompatibilityLevels(Protocol):
    """`HardwareCompatibilityLevel`."""

    AMPERE_PLUS: EnumMember


class TensorIOModes(Protocol):
    """`TensorIOMode`."""

    INPUT: EnumMember


class LayerInformationFormats(Protocol):
    """`LayerInformationFormat`."""

    JSON: EnumMember


class AllocationStrategies(Protocol):
    """`ExecutionContextAllocationStrategy`."""

    USER_MANAGED: EnumMember


class CudaGraphStrategies(Protocol):
    """`CudaGraphStrategy` of TensorRT-RTX."""

    WHOLE_GRAPH_CAPTURE: EnumMember


class EngineValidities(Protocol):
    """`EngineValidity` of TensorRT-RTX."""

    INVALID: EnumMember


class Logger(Protocol):
    """Object of a class derived from `ILogger`."""

    def log(self, severity: EnumMember, msg: str, /) -> None: ...


class LoggerClass(Protocol):
    """The class `ILogger`."""

    @property
    def Severity(self) -> Severities: ...


class ITensor(Protocol):
    """Input or output of a network; shapes have -1 for dynamic axes."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> object: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class INetworkDefinition(Protocol):
    """Network that the parser fills and the builder compiles."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_inputs(self) -> int: ...

    @property
    def num_outputs(self) -> int: ...

    def get_input(self, index: int, /) -> ITensor: ...

    def get_output(self, index: int, /) -> ITensor: ...


class IParserError(Protocol):
    """One error of the ONNX parser."""

    def desc(self) -> str: ...


class IParser(Protocol):
    """`OnnxParser`."""

    @property
    def num_errors(self) -> int: ...

    def get_error(self, index: int, /) -> IParserError: ...

    def parse(self, model: bytes, /) -> bool: ...


class ITimingCache(Protocol):
    """Measured kernel timings of earlier builds."""

    def serialize(self) -> Buffer: ...


class IOptimizationProfile(Protocol):
    """Allowed input shapes of an engine."""

    def set_shape(
        self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...], /
    ) -> None: ...


class IBuilderConfig(Protocol):
    """Options of one build."""

    profiling_verbosity: EnumMember
    hardware_compatibility_level: EnumMember

    def set_memory_pool_limit(self, pool: EnumMember, pool_size: int, /) -> None: ...

    def set_flag(self, flag: EnumMember, /) -> None: ...

    def clear_flag(self, flag: EnumMember, /) -> None: ...

    def set_tactic_sources(self, tactic_sources: int, /) -> object: ...

    def set_preview_feature(self, feature: EnumMember, enable: bool, /) -> None: ...

    def add_optimization_profile(self, profile: IOptimizationProfile, /) -> int: ...

    def create_timing_cache(self, serialized: bytes, /) -> ITimingCache | None: ...

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool, /) -> bool: ...

    def get_timing_cache(self) -> ITimingCache: ...


class IBuilder(Protocol):
    """`Builder`."""

    def create_network(self, flags: int, /) -> INetworkDefinition: ...

    def create_builder_config(self) -> IBuilderConfig: ...

    def create_optimization_profile(self) -> IOptimizationProfile: ...

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig, /
    ) -> Buffer | None: ...


class IRuntimeCache(Protocol):
    """Kernels that TensorRT-RTX has compiled for one GPU."""

    def deserialize(self, blob: bytes, /) -> object: ...

    def serialize(self) -> Buffer | None: ...


class IRuntimeConfig(Protocol):
    """Options of TensorRT-RTX's execution contexts."""

    cuda_graph_strategy: EnumMember

    def create_runtime_cache(self) -> IRuntimeCache: ...

    def set_runtime_cache(self, cache: IRuntimeCache, /) -> object: ...


class IEngineInspector(Protocol):
    """Source of layer information."""

    def get_engine_information(self, format: EnumMember, /) -> str: ...


class IExecutionContext(Protocol):
    """State of one execution of an engine."""

    # TensorRT 8.6: the address of the scratch memory.
    device_memory: int
    # Not in all versions.
    nvtx_verbosity: EnumMember

    @property
    def active_optimization_profile(self) -> int: ...

    # TensorRT 10 and 11.
    def set_device_memory(self, memory: int, size: int, /) -> None: ...

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int, /) -> bool: ...

    def set_input_shape(self, name: str, shape: tuple[int, ...], /) -> bool: ...

    def set_tensor_address(self, name: str, memory: int, /) -> bool: ...

    def execute_async_v3(self, stream_handle: int, /) -> bool: ...


class ICudaEngine(Protocol):
    """Deserialized engine."""

    @property
    def num_io_tensors(self) -> int: ...

    # TensorRT 8.6 and 10.
    @property
    def device_memory_size(self) -> int: ...

    # TensorRT 10, 11 and TensorRT-RTX.
    @property
    def device_memory_size_v2(self) -> int: ...

    def get_tensor_name(self, index: int, /) -> str: ...

    def get_tensor_mode(self, name: str, /) -> EnumMember: ...

    def create_engine_inspector(self) -> IEngineInspector: ...

    # TensorRT 10 and 11 take an allocation strategy, TensorRT-RTX a runtime configuration.
    def create_execution_context(
        self, option: EnumMember | IRuntimeConfig, /
    ) -> IExecutionContext | None: ...

    # TensorRT 8.6.
    def create_execution_context_without_device_memory(self) -> IExecutionContext | None: ...

    # TensorRT-RTX.
    def create_runtime_config(self) -> IRuntimeConfig: ...


class IRuntime(Protocol):
    """`Runtime`."""

    def deserialize_cuda_engine(self, serialized_engine: bytes, /) -> ICudaEngine | None: ...

    # TensorRT-RTX.
    def get_engine_validity(self, serialized_engine: bytes, /) -> tuple[EnumMember, object]: ...


class TensorRT(Protocol):
    """The module `tensorrt`, `tensorrt_rtx` or `tensorrt_rtx_bindings`."""

    __name__: str
    __version__: str

    def __hash__(self) -> int: ...

    @property
    def ILogger(self) -> LoggerClass: ...

    @property
    def BuilderFlag(self) -> BuilderFlags: ...

    @property
    def NetworkDefinitionCreationFlag(self) -> NetworkFlags: ...

    @property
    def TacticSource(self) -> TacticSources: ...

    @property
    def PreviewFeature(self) -> PreviewFeatures: ...

    @property
    def MemoryPoolType(self) -> MemoryPools: ...

    @property
    def ProfilingVerbosity(self) -> ProfilingVerbosities: ...

    @property
    def HardwareCompatibilityLevel(self) -> HardwareCompatibilityLevels: ...

    @property
    def TensorIOMode(self) -> TensorIOModes: ...

    @property
    def LayerInformationFormat(self) -> LayerInformationFormats: ...

    # TensorRT 10, 11 and TensorRT-RTX.
    @property
    def ExecutionContextAllocationStrategy(self) -> AllocationStrategies: ...

    # TensorRT-RTX.
    @property
    def CudaGraphStrategy(self) -> CudaGraphStrategies: ...

    # TensorRT-RTX.
    @property
    def EngineValidity(self) -> EngineValidities: ...

    def Builder(self, logger: Logger, /) -> IBuilder: ...

    def OnnxParser(self, network: INetworkDefinition, logger: Logger, /) -> IParser: ...

    def Runtime(self, logger: Logger, /) -> IRuntime: ...


# ---- pycuda ------------------------------------------------------------------------------------------------


class Allocation(Protocol):
    """Device memory or page-locked host memory."""

    def free(self) -> None: ...


class DeviceAllocation(Allocation, Protocol):
    """Device memory; `int()` of it is the address."""

    def __int__(self) -> int: ...


class PrimaryContext(Protocol):
    """The primary context of a GPU, retained by pycuda."""

    @property
    def handle(self) -> int: ...

    def push(self) -> None: ...

    def detach(self) -> None: ...


class ContextClass(Protocol):
    """The class `pycuda.driver.Context`."""

    def pop(self) -> None: ...

    def synchronize(self) -> None: ...


class CudaDevice(Protocol):
    """`pycuda.driver.Device`."""

    def retain_primary_context(self) -> PrimaryContext: ...


class CudaStream(Protocol):
    """CUDA stream."""

    @property
    def handle(self) -> int: ...

    def synchronize(self) -> None: ...


class CudaEvent(Protocol):
    """CUDA event."""

    def record(self, stream: Any, /) -> object: ...

    def synchronize(self) -> object: ...


class EventFlags(Protocol):
    """`pycuda.driver.event_flags`."""

    @property
    def BLOCKING_SYNC(self) -> int: ...

    @property
    def DISABLE_TIMING(self) -> int: ...


class Pycuda(Protocol):
    """The module `pycuda.driver`."""

    @property
    def Error(self) -> type[Exception]: ...

    @property
    def MemoryError(self) -> type[Exception]: ...

    @property
    def Context(self) -> ContextClass: ...

    @property
    def event_flags(self) -> EventFlags: ...

    def init(self) -> None: ...

    def Device(self, ordinal: int, /) -> CudaDevice: ...

    def Stream(self, flags: int, /) -> CudaStream: ...

    def Event(self, flags: int, /) -> CudaEvent: ...

    def mem_alloc(self, size: int, /) -> DeviceAllocation: ...

    def pagelocked_empty(self, size: int, dtype: np.dtype[Any], /) -> NDArray[Any]: ...

    def memcpy_htod_async(self, target: int, source: NDArray[Any], stream: Any, /) -> None: ...

    def memcpy_dtoh_async(self, target: NDArray[Any], source: int, stream: Any, /) -> None: ...


# ---- cuda-bindings -----------------------------------------------------------------------------------------


class CaptureModes(Protocol):
    """`CUstreamCaptureMode`."""

    @property
    def CU_STREAM_CAPTURE_MODE_THREAD_LOCAL(self) -> object: ...


class CudaDriver(Protocol):
    """The module `cuda.bindings.driver`; every call returns its result code first, 0 for success."""

    @property
    def CUstreamCaptureMode(self) -> CaptureModes: ...

    def CUstream(self, handle: int, /) -> object: ...

    def cuStreamBeginCapture(self, stream: Any, mode: Any, /) -> tuple[SupportsInt]: ...

    def cuStreamEndCapture(self, stream: Any, /) -> tuple[SupportsInt, object]: ...

    def cuGraphInstantiate(self, graph: Any, flags: int, /) -> tuple[SupportsInt, object]: ...

    def cuGraphDestroy(self, graph: Any, /) -> tuple[SupportsInt]: ...

    def cuGraphLaunch(self, executable: Any, stream: Any, /) -> tuple[SupportsInt]: ...

    def cuGraphExecDestroy(self, executable: Any, /) -> tuple[SupportsInt]: ...


# ---- libcuda -----------------------------------------------------------------------------------------------


class LibCuda(Protocol):
    """The driver's library, loaded by ctypes; every function returns its result code, 0 for success."""

    def __getattr__(self, function: str, /) -> Callable[..., int]: ...
