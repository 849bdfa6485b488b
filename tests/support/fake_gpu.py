"""Stand-in for a GPU: the parts of TensorRT, pycuda and cuda-bindings that the engine calls, on host memory.

    engine = TensorRTEngine(bundle, trt=fake_gpu.Trt("10"), cuda=fake_gpu.Cuda(), gpu=fake_gpu.GPU)

onnxruntime computes the networks from the addresses that the engine passes, so a wrong address, size, order
or missing copy gives wrong numbers, as it would on a GPU. Device memory can run out and the device can be
lost. Each generation of TensorRT has the members of that generation and no others. The classes implement the
protocols of `runtime.engines.tensorrt.api`, which mypy checks.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from runtime.engines.tensorrt import api
from runtime.engines.tensorrt.driver import Gpu

GPU = Gpu(name="Pretend 9000", capability=(9, 0), memory_bytes=1 << 30, cuda=(13, 0))
ENGINE_MAGIC = b"engine:"
TIMING_CACHE = b"timed"


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the one call of the engine that goes to libcuda directly."""
    monkeypatch.setattr("runtime.engines.tensorrt.device.leave_context", lambda handle: None)


# ---- pycuda ------------------------------------------------------------------------------------------------


class CudaError(Exception): ...


class CudaMemoryError(CudaError): ...


class CudaStream:
    """Stream that runs work at once, or records it during a capture."""

    handles = itertools.count(99)
    by_handle: ClassVar[dict[int, CudaStream]] = {}

    def __init__(self, cuda: Cuda) -> None:
        self.handle = next(self.handles)
        self.synchronize = cuda.check
        self.recorded: list[Callable[[], object]] | None = None
        self.by_handle[self.handle] = self

    def submit(self, work: Callable[[], object]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)


class CudaEvent:
    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def record(self, stream: CudaStream) -> None:
        self._cuda.check()

    def synchronize(self) -> None:
        self._cuda.check()


class Memory:
    """Allocation on the device, or of page-locked memory when it takes no device memory."""

    def __init__(self, cuda: Cuda, array: NDArray[Any], *, device_bytes: int = 0) -> None:
        self.array = array
        self._cuda = cuda
        self._device_bytes = device_bytes
        cuda.allocations[id(self)] = self

    def __int__(self) -> int:
        return self.array.ctypes.data

    def free(self) -> None:
        self._cuda.check()
        del self._cuda.allocations[id(self)]
        self._cuda.free_bytes += self._device_bytes


class PagelockedArray(np.ndarray[Any, Any]):
    """Array whose `base` is the allocation, as in pycuda."""

    owner: Any = None

    @property
    def base(self) -> Any:
        return self.owner


class PrimaryContext:
    handle = 4711

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def push(self) -> None:
        self._cuda.pushed.depth = self._cuda.depth + 1

    def detach(self) -> None:
        self._cuda.Context.pop()
        self._cuda.retained -= 1


class ContextClass:
    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def pop(self) -> None:
        assert self._cuda.depth > 0
        self._cuda.pushed.depth = self._cuda.depth - 1

    def synchronize(self) -> None:
        self._cuda.check()


class CudaDevice:
    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda

    def retain_primary_context(self) -> PrimaryContext:
        self._cuda.retained += 1
        return PrimaryContext(self._cuda)


class EventFlags:
    BLOCKING_SYNC = 1
    DISABLE_TIMING = 2


class Cuda:
    """Stand-in for the module `pycuda.driver`.

    Args:
        memory_bytes: Free device memory.

    Attributes:
        free_bytes: Device memory that is free now.
        lost: Whether every call fails, as after a fault of the device.
        allocations: Allocations that were not freed.
        retained: Number of retained primary contexts.
    """

    Error = CudaError
    MemoryError = CudaMemoryError
    event_flags = EventFlags()

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.free_bytes = memory_bytes
        self.lost = False
        self.allocations: dict[int, Memory] = {}
        self.pushed = threading.local()
        self.retained = 0
        self.Context = ContextClass(self)

    @property
    def depth(self) -> int:
        """Number of contexts pushed on this thread."""
        return getattr(self.pushed, "depth", 0)

    def check(self) -> None:
        """Fail as the driver would: without a current context, or on a lost device."""
        if self.depth == 0:
            raise CudaError("invalid device context")
        if self.lost:
            raise CudaError("an illegal memory access was encountered")

    def init(self) -> None: ...

    def Device(self, ordinal: int) -> CudaDevice:
        assert ordinal == 0
        return CudaDevice(self)

    def Stream(self, flags: int) -> CudaStream:
        self.check()
        return CudaStream(self)

    def Event(self, flags: int) -> CudaEvent:
        self.check()
        return CudaEvent(self)

    def mem_alloc(self, size: int) -> Memory:
        self.check()
        if size > self.free_bytes:
            raise CudaMemoryError("cuMemAlloc failed: out of memory")
        self.free_bytes -= size
        return Memory(self, np.zeros(size, np.uint8), device_bytes=size)

    def pagelocked_empty(self, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        self.check()
        memory = Memory(self, np.zeros(size, dtype))
        array = memory.array.view(PagelockedArray)
        array.owner = memory
        return array

    def memcpy_htod_async(self, target: int, source: NDArray[Any], stream: CudaStream) -> None:
        self.check()
        assert source.flags.c_contiguous
        stream.submit(lambda: ctypes.memmove(target, source.ctypes.data, source.nbytes))

    def memcpy_dtoh_async(self, target: NDArray[Any], source: int, stream: CudaStream) -> None:
        self.check()
        assert target.flags.c_contiguous
        stream.submit(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))


# ---- cuda-bindings -----------------------------------------------------------------------------------------


class CaptureModes:
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class CudaDriver:
    """Stand-in for the module `cuda.bindings.driver`: graphs are lists of recorded work.

    Attributes:
        capture_code: Result code of the end of a capture.
        launch_code: Result code of a launch; the graph runs only if it is 0.
        launched: Number of launches.
        graphs: Number of executable graphs that were not destroyed.
    """

    CUstreamCaptureMode = CaptureModes()

    def __init__(self) -> None:
        self.capture_code = self.launch_code = self.launched = self.graphs = 0

    def CUstream(self, handle: int) -> CudaStream:
        return CudaStream.by_handle[handle]

    def cuStreamBeginCapture(self, stream: CudaStream, mode: int) -> tuple[int]:
        stream.recorded = []
        return (0,)

    def cuStreamEndCapture(self, stream: CudaStream) -> tuple[int, object]:
        recorded, stream.recorded = stream.recorded, None
        return self.capture_code, recorded

    def cuGraphInstantiate(self, graph: list[Callable[[], object]], flags: int) -> tuple[int, object]:
        self.graphs += 1
        return 0, graph

    def cuGraphDestroy(self, graph: list[Callable[[], object]]) -> tuple[int]:
        return (0,)

    def cuGraphExecDestroy(self, executable: list[Callable[[], object]]) -> tuple[int]:
        self.graphs -= 1
        return (0,)

    def cuGraphLaunch(self, executable: list[Callable[[], object]], stream: CudaStream) -> tuple[int]:
        self.launched += 1
        if self.launch_code == 0:
            for work in executable:
                work()
        return (self.launch_code,)


# ---- TensorRT ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EnumMember:
    """Member of an enumeration."""

    name: str
    value: int

    def __int__(self) -> int:
        return self.value


class Enumeration:
    """Enumeration with the given members, numbered from 0."""

    def __init__(self, *names: str) -> None:
        for value, name in enumerate(names):
            setattr(self, name, EnumMember(name, value))

    def __getattr__(self, name: str) -> api.EnumMember:
        raise AttributeError(name)


SEVERITY = Enumeration("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class ILogger:
    Severity = SEVERITY


@dataclass
class Calls:
    """Record of the engine's calls to TensorRT, and faults that the stand-in simulates.

    Attributes:
        flags: Builder flags of the latest build.
        preview_features: Preview features of the latest build.
        tactic_sources: Tactic sources of the latest build, as bits; None if they were not set.
        config: Configuration of the latest build.
        runtime_config: Configuration of the latest execution context of TensorRT-RTX.
        builds: Number of builds.
        contexts: Number of execution contexts.
        executions: Number of executions.
        no_driver: Warning with which no builder can be created; empty if it can.
        execution_error: Error with which executions fail; empty if they do not.
        rejected: Serialized engines that are not accepted.
    """

    flags: set[str] = field(default_factory=set)
    preview_features: set[str] = field(default_factory=set)
    tactic_sources: int | None = None
    config: BuilderConfig | None = None
    runtime_config: RuntimeConfig | None = None
    builds: int = 0
    contexts: int = 0
    executions: int = 0
    no_driver: str = ""
    execution_error: str = ""
    rejected: list[bytes] = field(default_factory=list)


class Trt:
    """Stand-in for a TensorRT module.

    Args:
        generation: `8.6`, `10`, `11` or `rtx`.
    """

    # Some generations only.
    ExecutionContextAllocationStrategy: Enumeration
    CudaGraphStrategy: Enumeration
    EngineValidity: Enumeration

    def __init__(self, generation: str) -> None:
        self.__name__ = "tensorrt_rtx" if generation == "rtx" else "tensorrt"
        self.__version__ = {"8.6": "8.6.0", "10": "10.9.0", "11": "11.4.0", "rtx": "1.7.1"}[generation]
        self.generation = generation
        self.calls = Calls()
        old = generation == "8.6"
        weakly_typed = generation in ("8.6", "10")
        self.ILogger = ILogger
        self.BuilderFlag = Enumeration("TF32", "REFIT", *(["FP16", "INT8"] if weakly_typed else []))
        self.NetworkDefinitionCreationFlag = Enumeration(
            "EXPLICIT_BATCH" if old else "STRONGLY_TYPED", "OTHER"
        )
        external = ["CUBLAS", "CUBLAS_LT", "CUDNN"] if weakly_typed else []
        self.TacticSource = Enumeration(*external, "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
        disable = ["DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"] if old else []
        self.PreviewFeature = Enumeration("PROFILE_SHARING_0806", *disable)
        self.MemoryPoolType = Enumeration("WORKSPACE")
        self.ProfilingVerbosity = Enumeration("LAYER_NAMES_ONLY", "DETAILED")
        self.HardwareCompatibilityLevel = Enumeration("NONE", "AMPERE_PLUS")
        self.TensorIOMode = Enumeration("INPUT", "OUTPUT")
        self.LayerInformationFormat = Enumeration("ONELINE", "JSON")
        if not old:
            self.ExecutionContextAllocationStrategy = Enumeration("STATIC", "USER_MANAGED")
        if generation == "rtx":
            self.CudaGraphStrategy = Enumeration("DISABLED", "WHOLE_GRAPH_CAPTURE")
            self.EngineValidity = Enumeration("VALID", "INVALID")

    def Builder(self, logger: api.Logger) -> Builder:
        if reason := self.calls.no_driver:
            logger.log(SEVERITY.WARNING, reason)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return Builder(self)

    def OnnxParser(self, network: api.INetworkDefinition, logger: api.Logger) -> Parser:
        assert isinstance(network, NetworkDefinition)
        return Parser(network)

    def Runtime(self, logger: api.Logger) -> Runtime:
        return Runtime(self, logger)


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]


class NetworkDefinition:
    graph = b""
    num_layers = num_inputs = num_outputs = 0

    def read(self, graph: bytes, model: onnx.ModelProto) -> None:
        self.graph = graph
        self.num_layers = len(model.graph.node)
        self.num_inputs = self.num_outputs = 1
        self.input = Tensor(model.graph.input[0].name, "DataType.UINT8", (-1,))

    def get_input(self, index: int) -> Tensor:
        return self.input

    def get_output(self, index: int) -> Tensor:
        return Tensor("output", "DataType.FLOAT", (-1,))


class ParserError:
    def desc(self) -> str:
        return "it is no model."


class Parser:
    num_errors = 1

    def __init__(self, network: NetworkDefinition) -> None:
        self._network = network

    def parse(self, graph: bytes) -> bool:
        try:
            model = onnx.load_model_from_string(graph)
        except Exception:  # noqa: BLE001  a parser refuses whatever it cannot read
            return False
        (entry,) = model.opset_import
        assert entry.version <= 17
        self._network.read(graph, model)
        return True

    def get_error(self, index: int) -> ParserError:
        return ParserError()


@dataclass
class TimingCache:
    content: bytes

    def serialize(self) -> bytes:
        return TIMING_CACHE


class OptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.shapes[name] = (min, opt, max)


class BuilderConfig:
    profiling_verbosity: api.EnumMember
    hardware_compatibility_level: api.EnumMember

    def __init__(self, trt: Trt) -> None:
        self._trt = trt
        self.timing_cache: TimingCache | None = None
        self.profile = OptimizationProfile()
        self._calls = trt.calls
        self._calls.flags, self._calls.preview_features = {"TF32"}, set()

    def set_memory_pool_limit(self, pool: api.EnumMember, size: int) -> None: ...

    def set_flag(self, flag: api.EnumMember) -> None:
        self._calls.flags.add(flag.name)

    def clear_flag(self, flag: api.EnumMember) -> None:
        self._calls.flags.discard(flag.name)

    def set_tactic_sources(self, sources: int) -> bool:
        self._calls.tactic_sources = sources
        return True

    def set_preview_feature(self, feature: api.EnumMember, enable: bool) -> None:
        if enable:
            self._calls.preview_features.add(feature.name)

    def add_optimization_profile(self, profile: api.IOptimizationProfile) -> int:
        assert isinstance(profile, OptimizationProfile)
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized: bytes) -> TimingCache:
        return TimingCache(serialized)

    def set_timing_cache(self, cache: api.ITimingCache, ignore_mismatch: bool) -> bool:
        assert self._trt.generation != "rtx", "a timing cache of TensorRT-RTX needs a GPU"
        assert isinstance(cache, TimingCache)
        self.timing_cache = cache
        return cache.content in (b"", TIMING_CACHE)

    def get_timing_cache(self) -> TimingCache:
        assert self.timing_cache is not None
        return self.timing_cache


class Builder:
    def __init__(self, trt: Trt) -> None:
        self._trt = trt

    def create_network(self, flags: int) -> NetworkDefinition:
        assert flags == 1 << 0
        return NetworkDefinition()

    def create_builder_config(self) -> BuilderConfig:
        config = self._trt.calls.config = BuilderConfig(self._trt)
        return config

    def create_optimization_profile(self) -> OptimizationProfile:
        return OptimizationProfile()

    def build_serialized_network(
        self, network: api.INetworkDefinition, config: api.IBuilderConfig
    ) -> bytes | None:
        assert isinstance(network, NetworkDefinition)
        assert isinstance(config, BuilderConfig)
        calls = self._trt.calls
        calls.builds += 1
        header = {
            "profile": config.profile.shapes[network.input.name],
            "build": calls.builds,
            # Contexts share the profile on request in TensorRT 8.6, always in later versions.
            "shared": self._trt.generation != "8.6" or "PROFILE_SHARING_0806" in calls.preview_features,
        }
        return ENGINE_MAGIC + json.dumps(header).encode() + b"\n" + network.graph


class Runtime:
    # TensorRT-RTX only.
    get_engine_validity: Callable[[bytes], tuple[api.EnumMember, object]]

    def __init__(self, trt: Trt, logger: api.Logger) -> None:
        self._trt, self._logger = trt, logger
        if trt.generation == "rtx":
            self.get_engine_validity = lambda serialized: (trt.EngineValidity.VALID, 0)

    def deserialize_cuda_engine(self, serialized: bytes) -> Engine | None:
        if serialized in self._trt.calls.rejected or not serialized.startswith(ENGINE_MAGIC):
            self._logger.log(SEVERITY.ERROR, "The engine plan file is not compatible.")
            return None
        return Engine(self._trt, self._logger, serialized)


class RuntimeConfig:
    cuda_graph_strategy: api.EnumMember
    # Newer releases of TensorRT-RTX only; none here.
    create_runtime_cache: Callable[[], api.IRuntimeCache]
    set_runtime_cache: Callable[[api.IRuntimeCache], object]


class EngineInspector:
    def get_engine_information(self, format: api.EnumMember) -> str:
        layers = [{"LayerType": "Convolution", "Outputs": [{"Format/Datatype": "Half"}]}]
        return json.dumps({"Layers": layers})


class Engine:
    num_io_tensors = 2
    # Some generations only.
    device_memory_size: int
    device_memory_size_v2: int
    create_execution_context: Callable[[api.EnumMember | api.IRuntimeConfig], ExecutionContext]
    create_execution_context_without_device_memory: Callable[[], ExecutionContext]
    create_runtime_config: Callable[[], RuntimeConfig]

    def __init__(self, trt: Trt, logger: api.Logger, serialized: bytes) -> None:
        header, _, graph = serialized[len(ENGINE_MAGIC) :].partition(b"\n")
        self.trt, self.logger = trt, logger
        self.profile: list[list[int]] = json.loads(header)["profile"]
        self.shared: bool = json.loads(header)["shared"]
        self.contexts = 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.names: list[str] = [self.session.get_inputs()[0].name, self.session.get_outputs()[0].name]
        if trt.generation == "8.6":
            self.device_memory_size = 4096
            self.create_execution_context_without_device_memory = lambda: ExecutionContext(self)
        else:
            self.device_memory_size_v2 = 4096
            self.create_execution_context = self._create_context
        if trt.generation == "rtx":
            self.create_runtime_config = RuntimeConfig

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> api.EnumMember:
        modes = self.trt.TensorIOMode
        return modes.INPUT if name == self.names[0] else modes.OUTPUT

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector()

    def _create_context(self, option: api.EnumMember | api.IRuntimeConfig) -> ExecutionContext:
        context = ExecutionContext(self)
        if self.trt.generation == "rtx":
            assert isinstance(option, RuntimeConfig)
            self.trt.calls.runtime_config = option
            # TensorRT-RTX allocates the scratch memory itself.
            context.has_memory = True
        else:
            assert isinstance(option, EnumMember)
            assert option.name == "USER_MANAGED"
        return context


class ExecutionContext:
    # Some generations only.
    device_memory: int
    nvtx_verbosity: api.EnumMember
    set_device_memory: Callable[[int, int], None]

    active_optimization_profile = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self.has_memory = False
        engine.trt.calls.contexts += 1
        engine.contexts += 1
        self._has_profile = engine.shared or engine.contexts == 1
        if engine.trt.generation in ("10", "11"):
            self.set_device_memory = self._set_device_memory

    def _set_device_memory(self, address: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self.has_memory = address > 0

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "device_memory":
            assert self._engine.trt.generation == "8.6"
            self.has_memory = value > 0
        super().__setattr__(name, value)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        raise AssertionError("the profile is active already")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.names

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        min_shape, _, max_shape = self._engine.profile
        inside = all(a <= n <= b for a, n, b in zip(min_shape, shape, max_shape, strict=True))
        fits = self._has_profile and inside
        self._shape = shape if fits else ()
        return fits

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        error = engine.trt.calls.execution_error
        if not (self.has_memory and self._shape and stream in CudaStream.by_handle) or error:
            engine.logger.log(SEVERITY.ERROR, error or "Not all is set.")
            return False
        shape = self._shape
        CudaStream.by_handle[stream].submit(lambda: self._execute(shape))
        return True

    def _execute(self, shape: tuple[int, ...]) -> None:
        engine = self._engine
        engine.trt.calls.executions += 1
        dtype = np.uint8 if engine.session.get_inputs()[0].type == "tensor(uint8)" else np.float32
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * size).from_address(self._addresses[engine.names[0]])
        batch = np.frombuffer(memoryview(memory).cast("B"), dtype).reshape(shape)
        (result,) = engine.session.run(None, {engine.names[0]: batch})
        output = np.ascontiguousarray(result, np.float32)
        ctypes.memmove(self._addresses[engine.names[1]], output.ctypes.data, output.nbytes)


def check_protocols(trt: Trt, cuda: Cuda, driver: CudaDriver) -> None:
    """Let mypy check that the stand-ins implement the protocols; never called."""
    _trt: api.TensorRT = trt
    _cuda: api.Pycuda = cuda
    _driver: api.CudaDriver = driver
