"""A GPU that is not there: what the TensorRT engine calls of pycuda and TensorRT, on this machine's memory.

The networks are computed by onnxruntime, from the addresses that the engine hands over, so a wrong address,
size, order or missing copy gives wrong numbers as it would on a GPU. Device memory can run out, the device
can be lost, and each generation of TensorRT has what that generation has, and no more.
"""

from __future__ import annotations

import ctypes
import json
import threading
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from runtime.engines.tensorrt.driver import Gpu

GPU = Gpu(name="Pretend 9000", capability=(9, 0), memory_bytes=1 << 30, cuda=(13, 0))
MAGIC = b"engine:"


class Cuda:
    """Stands for the module `pycuda.driver`."""

    class Error(Exception): ...

    class MemoryError(Error): ...

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self.free_bytes = memory_bytes
        self.lost = False
        self.taken: dict[int, Any] = {}
        self.pushed = threading.local()
        self.retained = 0
        self.event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
        cuda = self

        class Context:
            handle = 4711

            def push(self) -> None:
                cuda.pushed.depth = cuda.depth + 1

            def detach(self) -> None:
                assert cuda.depth > 0
                cuda.pushed.depth = cuda.depth - 1
                cuda.retained -= 1

            @staticmethod
            def pop() -> None:
                assert cuda.depth > 0
                cuda.pushed.depth = cuda.depth - 1

            @staticmethod
            def synchronize() -> None:
                cuda.check()

        self.Context = Context

    @property
    def depth(self) -> int:
        return getattr(self.pushed, "depth", 0)

    def check(self) -> None:
        """Refuse what the driver would: work without a current context, or on a lost device."""
        if self.depth == 0:
            raise self.Error("invalid device context")
        if self.lost:
            raise self.Error("an illegal memory access was encountered")

    def init(self) -> None: ...

    def Device(self, ordinal: int) -> Any:
        def retain() -> Any:
            self.retained += 1
            return self.Context()

        assert ordinal == 0
        return SimpleNamespace(retain_primary_context=retain)

    def Stream(self, flags: int) -> Any:
        self.check()
        return SimpleNamespace(handle=99, synchronize=self.check)

    def Event(self, flags: int) -> Any:
        self.check()
        return SimpleNamespace(record=lambda stream: self.check(), synchronize=self.check)

    def mem_alloc(self, size: int) -> Any:
        self.check()
        if size > self.free_bytes:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        self.free_bytes -= size
        return _Memory(self, np.zeros(size, np.uint8), device_bytes=size)

    def pagelocked_empty(self, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        self.check()
        memory = _Memory(self, np.zeros(size, dtype))
        array = memory.array.view(_Based)
        array.owner = memory
        return array

    def memcpy_htod_async(self, target: int, source: NDArray[Any], stream: Any) -> None:
        self.check()
        assert source.flags.c_contiguous
        ctypes.memmove(target, source.ctypes.data, source.nbytes)

    def memcpy_dtoh_async(self, target: NDArray[Any], source: int, stream: Any) -> None:
        self.check()
        assert target.flags.c_contiguous
        ctypes.memmove(target.ctypes.data, source, target.nbytes)


class _Memory:
    def __init__(self, cuda: Cuda, array: NDArray[Any], *, device_bytes: int = 0) -> None:
        self.array = array
        self._cuda = cuda
        self._device_bytes = device_bytes
        cuda.taken[id(self)] = self

    def __int__(self) -> int:
        return self.array.ctypes.data

    def free(self) -> None:
        self._cuda.check()
        del self._cuda.taken[id(self)]
        self._cuda.free_bytes += self._device_bytes


class _Based(np.ndarray[Any, Any]):
    """An array whose `base` is the allocation, as pycuda's are."""

    owner: Any = None

    @property
    def base(self) -> Any:
        return self.owner


class Severity(IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


def _enum(*names: str) -> Any:
    return IntEnum("Members", {name: i for i, name in enumerate(names)})


class Trt:
    """Stands for a TensorRT module.

    Args:
        generation: `8.6`, `10`, `11` or `rtx`.
    """

    def __init__(self, generation: str) -> None:
        self.__name__ = "tensorrt_rtx" if generation == "rtx" else "tensorrt"
        self.__version__ = {"8.6": "8.6.0", "10": "10.9.0", "11": "11.4.0", "rtx": "1.7.1"}[generation]
        self.generation = generation
        self.seen: dict[str, Any] = {"flags": set(), "built": 0, "contexts": 0, "executed": 0}
        self.refuse: list[bytes] = []
        old = generation == "8.6"
        weak = generation in ("8.6", "10")
        self.ILogger = type("ILogger", (), {"Severity": Severity})
        flags = ["TF32", "REFIT"] + (["FP16", "INT8"] if weak else [])
        self.BuilderFlag = _enum(*flags)
        self.NetworkDefinitionCreationFlag = _enum("EXPLICIT_BATCH" if old else "STRONGLY_TYPED", "OTHER")
        sources = ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
        self.TacticSource = _enum(*(["CUBLAS", "CUBLAS_LT", "CUDNN"] if weak else []), *sources)
        external = ["DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"]
        self.PreviewFeature = _enum("PROFILE_SHARING_0806", *(external if old else []))
        self.MemoryPoolType = _enum("WORKSPACE")
        self.ProfilingVerbosity = _enum("LAYER_NAMES_ONLY", "DETAILED")
        self.HardwareCompatibilityLevel = _enum("NONE", "AMPERE_PLUS")
        self.TensorIOMode = _enum("INPUT", "OUTPUT")
        self.LayerInformationFormat = _enum("ONELINE", "JSON")
        if not old:
            self.ExecutionContextAllocationStrategy = _enum("STATIC", "USER_MANAGED")
        if generation == "rtx":
            self.CudaGraphStrategy = _enum("DISABLED", "WHOLE_GRAPH_CAPTURE")
            self.EngineValidity = _enum("VALID", "INVALID")

    def __hash__(self) -> int:
        return id(self)

    def Builder(self, logger: Any) -> Any:
        if reason := self.seen.get("no driver"):
            logger.log(Severity.WARNING, reason)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return _Builder(self, logger)

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        def parse(graph: bytes) -> bool:
            network.graph = graph
            try:
                model = onnx.load_model_from_string(graph)
            except Exception:  # noqa: BLE001  whatever it is, a parser says no
                return False
            (entry,) = model.opset_import
            assert entry.version <= 17
            network.read(model)
            return True

        error = SimpleNamespace(desc=lambda: "it is no model.")
        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda i: error)

    def Runtime(self, logger: Any) -> Any:
        def deserialize(serialized: bytes) -> Any:
            if serialized in self.refuse or not serialized.startswith(MAGIC):
                logger.log(Severity.ERROR, "The engine plan file is not compatible.")
                return None
            return _Engine(self, logger, serialized)

        runtime = SimpleNamespace(deserialize_cuda_engine=deserialize)
        if self.generation == "rtx":
            runtime.get_engine_validity = lambda serialized: (self.EngineValidity.VALID, 0)
        return runtime


class _Network:
    num_layers = num_inputs = num_outputs = 0

    def read(self, model: onnx.ModelProto) -> None:
        self.num_layers = len(model.graph.node)
        self.num_inputs = self.num_outputs = 1
        port = model.graph.input[0]
        self.taken = SimpleNamespace(name=port.name, dtype="DataType.UINT8", shape=(-1,))

    def get_input(self, index: int) -> Any:
        return self.taken

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(name="given", dtype="DataType.FLOAT", shape=(-1,))


class _Builder:
    def __init__(self, trt: Trt, logger: Any) -> None:
        self._trt = trt

    def create_network(self, flags: int) -> _Network:
        assert flags == 1 << 0
        return _Network()

    def create_builder_config(self) -> Any:
        seen, trt = self._trt.seen, self._trt
        flags = seen["flags"] = {"TF32"}
        previews: set[str] = set()
        seen["previews"] = previews
        config = SimpleNamespace(timing=b"")

        def set_timing(cache: Any, ignore: bool) -> bool:
            assert trt.generation != "rtx", "it would ask for a GPU"
            config.timing = cache
            return cache.content in (b"", b"timed")

        config.set_memory_pool_limit = lambda pool, size: None
        config.set_flag = lambda flag: flags.add(flag.name)
        config.clear_flag = lambda flag: flags.discard(flag.name)
        config.set_tactic_sources = lambda bits: seen.update(tactics=bits)
        config.set_preview_feature = lambda feature, on: previews.add(feature.name)
        config.add_optimization_profile = lambda profile: 0
        config.create_timing_cache = lambda content: SimpleNamespace(content=content)
        config.set_timing_cache = set_timing
        config.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: b"timed")
        seen["config"] = config
        return config

    def create_optimization_profile(self) -> Any:
        def set_shape(name: str, *shapes: Any) -> None:
            self._trt.seen.setdefault("shapes", {})[name] = shapes

        return SimpleNamespace(set_shape=set_shape)

    def build_serialized_network(self, network: _Network, config: Any) -> bytes | None:
        self._trt.seen["built"] += 1
        shapes = self._trt.seen["shapes"][network.taken.name]
        header = {
            "profile": [list(shape) for shape in shapes],
            "build": self._trt.seen["built"],
            # From TensorRT 10 on it always is.
            "shared": self._trt.generation != "8.6" or "PROFILE_SHARING_0806" in self._trt.seen["previews"],
        }
        return MAGIC + json.dumps(header).encode() + b"\n" + network.graph


class _Engine:
    def __init__(self, trt: Trt, logger: Any, serialized: bytes) -> None:
        header, _, graph = serialized[len(MAGIC) :].partition(b"\n")
        self.trt, self.logger = trt, logger
        self.profile = json.loads(header)["profile"]
        self.shared = json.loads(header)["shared"]
        self.in_use = 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.names = [self.session.get_inputs()[0].name, self.session.get_outputs()[0].name]
        self.num_io_tensors = 2
        setattr(self, "device_memory_size" if trt.generation == "8.6" else "device_memory_size_v2", 4096)
        if trt.generation == "8.6":
            self.create_execution_context_without_device_memory = lambda: _Context(self)
        elif trt.generation == "rtx":
            self.create_runtime_config = lambda: SimpleNamespace()
            self.create_execution_context = self._rtx_context
        else:
            self.create_execution_context = self._context

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt.TensorIOMode(self.names.index(name))

    def create_engine_inspector(self) -> Any:
        layers = [{"LayerType": "Convolution", "Outputs": [{"Format/Datatype": "Half"}]}]
        return SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": layers}))

    def _context(self, strategy: Any) -> Any:
        assert strategy.name == "USER_MANAGED"
        return _Context(self)

    def _rtx_context(self, config: Any) -> Any:
        self.trt.seen["runtime_config"] = config
        context = _Context(self)
        context.has_memory = True
        return context


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self.has_memory = False
        engine.trt.seen["contexts"] += 1
        engine.in_use += 1
        self._has_profile = engine.shared or engine.in_use == 1
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

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.names

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.profile
        fits = self._has_profile and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        self._shape = shape if fits else ()
        return fits

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        if not (self.has_memory and self._shape and stream == 99) or engine.trt.seen.get("broken"):
            engine.logger.log(Severity.ERROR, engine.trt.seen.get("broken", "Not all is set."))
            return False
        engine.trt.seen["executed"] += 1
        kind = np.uint8 if engine.session.get_inputs()[0].type == "tensor(uint8)" else np.float32
        size = int(np.prod(self._shape)) * np.dtype(kind).itemsize
        taken = (ctypes.c_uint8 * size).from_address(self._addresses[engine.names[0]])
        batch = np.frombuffer(taken, kind).reshape(self._shape)
        (given,) = engine.session.run(None, {engine.names[0]: batch})
        given = np.ascontiguousarray(given, np.float32)
        ctypes.memmove(self._addresses[engine.names[1]], given.ctypes.data, given.nbytes)
        return True
