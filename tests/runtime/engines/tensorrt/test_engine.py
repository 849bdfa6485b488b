"""The TensorRT engine without a GPU: on a pretended one it must give onnxruntime's numbers, and own up."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.engines.fallback import FallbackEngine
from runtime.engines.interface import Engine
from runtime.engines.tensorrt.builder import MAX_BATCH
from runtime.engines.tensorrt.driver import probe
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.runner import MAX_CUDA_GRAPHS, CaptureApi
from runtime.errors import DeviceLost, DeviceMemoryFull, EngineFailed, EngineUnavailable
from runtime.model.bundle import Bundle, load_bundle
from tests.support import fake_gpu

GENERATIONS = ("8.6", "10", "11", "rtx")


@pytest.fixture
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture
def cuda() -> fake_gpu.Cuda:
    return fake_gpu.Cuda()


@pytest.fixture(autouse=True)
def no_driver_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no driver whose context could be left."""
    monkeypatch.setattr("runtime.engines.tensorrt.runner.leave_context", lambda handle: None)


@pytest.fixture
def make(bundle: Bundle, cuda: fake_gpu.Cuda, tmp_path: Path) -> Callable[..., TensorRTEngine]:
    """Give `make(generation, **options)`, an engine on the pretended GPU."""

    def make(trt: str | fake_gpu.Trt = "10", **options: Any) -> TensorRTEngine:
        return TensorRTEngine(
            bundle,
            cache=EngineCache(tmp_path / "cache"),
            trt=fake_gpu.Trt(trt) if isinstance(trt, str) else trt,
            cuda=cuda,
            gpu=fake_gpu.GPU,
            **{"precision": "fp32", "cuda_graphs": False, **options},
        )

    return make


@pytest.fixture
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (2 * MAX_BATCH + 9, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def reference(bundle: Bundle, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of the crops and logits of windows of them, from onnxruntime."""
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        features = engine.features(crops)
        return features, engine.logits(windows_of(features))


def windows_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([features[i : i + 6] for i in range(MAX_BATCH + 3)])


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_gives_the_numbers_of_onnxruntime(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    cuda: fake_gpu.Cuda,
    generation: str,
) -> None:
    """Addresses, shapes, pieces of large batches, empty ones: and nothing is held when the block is left."""
    with make(generation) as engine:
        assert isinstance(engine, Engine)
        for count in (1, 3, MAX_BATCH, len(crops)):
            np.testing.assert_allclose(
                engine.features(crops[:count]), reference[0][:count], rtol=1e-4, atol=1e-4
            )
        np.testing.assert_allclose(
            engine.logits(windows_of(reference[0])), reference[1], rtol=1e-4, atol=1e-4
        )
        assert engine.features(crops[:0]).shape == (0, 16)
        assert engine.logits(np.empty((0, 4, 16), np.float32)).shape == (0,)
        assert cuda.retained == 1
    assert cuda.taken == {}
    assert cuda.free_bytes == 1 << 30
    assert (cuda.retained, cuda.depth) == (0, 0)
    with pytest.raises(RuntimeError, match="closed"):
        engine.features(crops[:1])


def test_memory_is_taken_once(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], cuda: fake_gpu.Cuda
) -> None:
    """No batch, however large, takes more than what opening took."""
    with make() as engine:
        free, owned = cuda.free_bytes, len(cuda.taken)
        for count in (len(crops), 1, MAX_BATCH):
            engine.features(crops[:count])
        assert (cuda.free_bytes, len(cuda.taken)) == (free, owned)


def test_half_precision_stays_near(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Convolutions in float16 move a feature by thousandths, and no more; fp32 is another engine."""
    with make(precision="fp16") as engine:
        features = engine.features(crops[:8])
    difference = np.abs(features - reference[0][:8]).max()
    assert 1e-6 < difference < 1e-2 * np.abs(reference[0]).max()


def test_wrong_input_is_refused(make: Callable[..., TensorRTEngine]) -> None:
    """The checks are those of every engine."""
    with make() as engine:
        with pytest.raises(ValueError, match=r"crops must be uint8 \(N, 32, 32, 3\)"):
            engine.features(np.zeros((1, 3, 32, 32), np.uint8))
        with pytest.raises(ValueError, match="windows must hold 4 to 8 samples, not 3"):
            engine.logits(np.zeros((1, 3, 16), np.float32))
        with pytest.raises(EngineFailed, match="not finite"):
            engine.logits(np.full((1, 4, 16), np.nan, np.float32))
        with pytest.raises(RuntimeError, match="open already"), engine:
            pass


def test_many_threads_get_their_own_answers(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> None:
    """Staging memory is shared; a lock keeps one caller's crops from another's features."""
    answers: dict[int, NDArray[np.float32]] = {}
    with make() as engine:

        def work(i: int) -> None:
            for _ in range(5):
                answers[i] = engine.features(crops[i : i + 4])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, answer in answers.items():
        np.testing.assert_allclose(answer, reference[0][i : i + 4], rtol=1e-4, atol=1e-4)


def test_a_full_gpu_is_a_named_error(make: Callable[..., TensorRTEngine], cuda: fake_gpu.Cuda) -> None:
    """What was taken before it was full is given back."""
    cuda.free_bytes = before = 100_000
    with pytest.raises(DeviceMemoryFull, match=r"memory is full.*; end what else runs on the GPU"):
        make().__enter__()
    assert cuda.free_bytes == before
    assert (cuda.taken, cuda.retained, cuda.depth) == ({}, 0, 0)


def test_a_lost_gpu_is_a_named_error(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], cuda: fake_gpu.Cuda
) -> None:
    """Every call fails from then on, and the block can still be left."""
    with make() as engine:
        engine.features(crops[:1])
        cuda.lost = True
        for _ in range(2):
            with pytest.raises(DeviceLost, match=r"stopped answering .*; restart"):
                engine.features(crops[:1])


def test_rtx_captures_by_itself(make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8]) -> None:
    """Only it knows when its kernels for a shape are compiled: it is told to, not captured from outside."""
    trt = fake_gpu.Trt("rtx")
    with make(trt, cuda_graphs=True) as engine:
        engine.features(crops[:1])
        assert engine.inspect()["head"]["cuda_graphs"] == "native"
    assert trt.seen["runtime_config"].cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"


@pytest.mark.parametrize(
    ("said", "kind"),
    [("CUDA out of memory in enqueue", DeviceMemoryFull), ("Shape inference failed.", EngineFailed)],
)
def test_what_tensorrt_only_logs_is_named(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], said: str, kind: type[EngineFailed]
) -> None:
    """It returns false; the reason is in its log."""
    trt = fake_gpu.Trt("10")
    with make(trt) as engine:
        trt.seen["broken"] = said
        with pytest.raises(EngineFailed, match=said.rstrip(".")) as caught:
            engine.features(crops[:1])
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA initialization failure with error: 35.", EngineUnavailable),
        ("CUDA initialization failure with error: 2.", DeviceMemoryFull),
    ],
)
def test_a_driver_that_does_not_fit_is_named(
    make: Callable[..., TensorRTEngine], said: str, kind: type[Exception]
) -> None:
    """TensorRT gives no builder and says why in a warning; for `auto` it is an engine error all the same."""
    trt = fake_gpu.Trt("10")
    trt.seen["no driver"] = said
    with pytest.raises(kind, match=said.rstrip(".")), make(trt):
        pass


def test_an_engine_that_is_not_taken_is_built_again(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    """A driver or library may refuse what has the right key: it is built once more."""
    trt = fake_gpu.Trt("10")
    with make(trt):
        pass
    assert trt.seen["built"] == 2
    cards = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert [card["summary"]["inspected"]["formats"] for card in cards] == [{"Half": 1}] * 2
    trt.refuse = [path.read_bytes() for path in tmp_path.rglob("backbone*.engine")]
    with make(trt) as engine:
        engine.features(crops[:1])
    assert trt.seen["built"] == 4


class Driver:
    """Stands for `cuda.bindings.driver`: what is queued while it captures is kept and replayed."""

    CUstreamCaptureMode = type("Mode", (), {"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1})

    def __init__(self, cuda: fake_gpu.Cuda, code: int = 0) -> None:
        self.cuda, self.code = cuda, code
        self.launched, self.held, self.launch_code = 0, 0, 0
        self.queued: list[Callable[[], Any]] | None = None
        for name in ("memcpy_htod_async", "memcpy_dtoh_async"):
            setattr(cuda, name, self._queueing(getattr(cuda, name)))
        execute = fake_gpu._Context.execute_async_v3
        self.execute = lambda context, stream: self._queueing(execute)(context, stream) is not False

    def _queueing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def queue(*arguments: Any) -> Any:
            if self.queued is None:
                return call(*arguments)
            self.queued.append(lambda: call(*arguments))
            return None

        return queue

    def CUstream(self, handle: int) -> int:
        return handle

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.queued = []
        return (0,)

    def cuStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        queued, self.queued = self.queued, None
        return self.code, queued

    def cuGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:
        self.held += 1
        return 0, graph

    def cuGraphDestroy(self, graph: Any) -> tuple[int]:
        return (0,)

    def cuGraphExecDestroy(self, graph: Any) -> tuple[int]:
        self.held -= 1
        return (0,)

    def cuGraphLaunch(self, graph: Any, stream: int) -> tuple[int]:
        self.launched += 1
        if self.launch_code == 0:
            for call in graph:
                call()
        return (self.launch_code,)


@pytest.fixture
def driver(cuda: fake_gpu.Cuda, monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver(cuda)
    monkeypatch.setattr("runtime.engines.tensorrt.runner._capture_api", lambda: CaptureApi(driver))
    monkeypatch.setattr(fake_gpu._Context, "execute_async_v3", lambda *given: driver.execute(*given))
    return driver


@pytest.mark.parametrize("generation", ["8.6", "10", "11"])
def test_shapes_that_recur_are_replayed(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    driver: Driver,
    generation: str,
) -> None:
    """From the third time on a batch is one launch, with new crops in and their own features out."""
    with make(generation, cuda_graphs=True) as engine:
        for time in range(4):
            assert driver.launched == 2 * max(0, time - 2)
            for count in (2, 5):
                part = slice(time, time + count)
                np.testing.assert_allclose(
                    engine.features(crops[part]), reference[0][part], rtol=1e-4, atol=1e-4
                )
        assert driver.held == 2
        assert engine.inspect()["backbone"]["cuda_graphs"] == "own"
    assert driver.held == 0


def test_windows_that_fill_take_no_graph(
    make: Callable[..., TensorRTEngine], bundle: Bundle, driver: Driver
) -> None:
    """Each length comes once for every new face; only full windows come again and again."""
    with make(cuda_graphs=True) as engine:
        for _ in range(4):
            for length in range(bundle.min_frames, bundle.window + 1):
                engine.logits(np.zeros((1, length, bundle.feature_dim), np.float32))
        assert driver.held == 1


@pytest.mark.parametrize(("code", "kind"), [(2, DeviceMemoryFull), (1, EngineFailed)])
def test_a_graph_that_is_refused_is_named(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    driver: Driver,
    code: int,
    kind: type[EngineFailed],
) -> None:
    """A full GPU is not a lost one."""
    with make(cuda_graphs=True) as engine:
        for _ in range(3):
            engine.features(crops[:1])
        driver.launch_code = code
        with pytest.raises(EngineFailed) as caught:
            engine.features(crops[:1])
    assert type(caught.value) is kind


def test_graphs_are_bounded(
    make: Callable[..., TensorRTEngine], crops: NDArray[np.uint8], driver: Driver
) -> None:
    """Each holds memory; beyond a limit, sizes run as they are."""
    with make(cuda_graphs=True) as engine:
        for count in range(1, MAX_CUDA_GRAPHS + 4):
            for _ in range(3):
                engine.features(crops[:count])
        assert driver.held == MAX_CUDA_GRAPHS


def test_what_cannot_be_captured_runs_without(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    driver: Driver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line in the log, and the numbers stay."""
    driver.code = 901
    with caplog.at_level(logging.INFO), make(cuda_graphs=True) as engine:
        for _ in range(5):
            np.testing.assert_allclose(engine.features(crops[:3]), reference[0][:3], rtol=1e-4, atol=1e-4)
        assert engine.inspect()["backbone"]["cuda_graphs"] == "none"
    assert len([line for line in caplog.messages if "no CUDA graphs: the driver answers 901" in line]) == 1
    assert driver.launched == 0


def test_what_was_captured_before_stays(
    make: Callable[..., TensorRTEngine],
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    driver: Driver,
) -> None:
    """A shape that cannot be captured does not take the graphs of others away."""
    with make(cuda_graphs=True) as engine:
        for count, code in ((2, 0), (3, 901)):
            driver.code = code
            for _ in range(3):
                engine.features(crops[:count])
        launched = driver.launched
        for count in (2, 3, 4, 4, 4):
            np.testing.assert_allclose(
                engine.features(crops[:count]), reference[0][:count], rtol=1e-4, atol=1e-4
            )
        assert driver.launched == launched + 1
        assert driver.held == 1
        assert engine.inspect()["backbone"]["cuda_graphs"] == "own"
    assert driver.held == 0


def test_auto_goes_on_with_the_cpu(
    make: Callable[..., TensorRTEngine],
    bundle: Bundle,
    crops: NDArray[np.uint8],
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    cuda: fake_gpu.Cuda,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The call that finds the GPU lost is answered by onnxruntime, with one warning that says why."""
    engine = FallbackEngine(make(), lambda: open_engine(bundle, "onnxruntime", threads=1))
    with engine:
        assert "Pretend 9000" in engine.describe()
        engine.features(crops[:2])
        cuda.lost = True
        for _ in range(2):
            np.testing.assert_allclose(engine.features(crops[:2]), reference[0][:2], rtol=1e-4, atol=1e-4)
        engine.logits(windows_of(reference[0]))
        assert engine.name == "onnxruntime"
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "on the CPU, 1 thread from now on" in line
    assert "stopped answering" in line


def test_auto_begins_with_the_cpu_where_the_gpu_is_full(
    make: Callable[..., TensorRTEngine], bundle: Bundle, crops: NDArray[np.uint8], cuda: fake_gpu.Cuda
) -> None:
    """A GPU that cannot be opened is no reason not to watch; a mistake of the caller stays one."""
    cuda.free_bytes = 1000
    with FallbackEngine(make(), lambda: open_engine(bundle, "onnxruntime", threads=1)) as engine:
        assert engine.features(crops[:2]).shape == (2, 16)
        assert engine.name == "onnxruntime"
        with pytest.raises(ValueError, match="crops must be"):
            engine.features(crops[0])
        with pytest.raises(EngineFailed, match="not finite"):
            engine.logits(np.full((1, 4, 16), np.nan, np.float32))


class Library:
    """Stands for libcuda, called through ctypes."""

    def __init__(self, failing: str = "", count: int = 1) -> None:
        self.failing, self.count = failing, count

    def __getattr__(self, function: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if function == self.failing:
                return 100
            target = getattr(arguments[0], "_obj", arguments[0]) if arguments else None
            if function == "cuDeviceGetCount":
                target.value = self.count
            elif function == "cuDeviceGetName":
                arguments[0].value = b"Pretend 9000"
            elif function == "cuDeviceTotalMem_v2":
                target.value = 1 << 33
            elif function == "cuDriverGetVersion":
                target.value = 13020
            elif function == "cuDeviceGetAttribute":
                target.value = {75: 9, 76: 0}[arguments[1]]
            elif function == "cuGetErrorString":
                arguments[1]._obj.value = b"no CUDA-capable device is detected"
            return 0

        return call


def missing(name: str) -> NoReturn:
    raise OSError(f"{name}: cannot open shared object file")


def test_the_driver_names_its_gpu() -> None:
    """Name, architecture, memory and CUDA version."""
    gpu = probe(lambda name: Library())
    assert (gpu.name, gpu.architecture, gpu.cuda) == ("Pretend 9000", "sm_90", (13, 2))
    assert gpu.memory_bytes == 1 << 33


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (missing, "no NVIDIA driver on this machine"),
        (lambda name: Library("cuInit"), r"fails in cuInit: no CUDA-capable device is detected \(100\)"),
        (lambda name: Library(count=0), "shows no GPU to this process"),
    ],
)
def test_without_a_gpu_it_says_so(load: Callable[[str], Any], words: str) -> None:
    """Each way of having none has its line, with what to use instead."""
    with pytest.raises(EngineUnavailable, match=words) as caught:
        probe(load)
    assert str(caught.value).endswith("use --engine onnxruntime or --engine auto")


ROOT = Path(__file__).parents[4]
LEAST = "import runtime.engines.tensorrt.engine, runtime.engines.recorded_outputs\n"


def test_it_imports_where_nothing_is_installed() -> None:
    """The engine, the builder and what they import need numpy alone to be loaded."""
    blocked = ["onnx", "onnxruntime", "cv2", "av", "tensorrt", "pycuda", "cuda", "torch", "google", "typer"]
    script = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n{LEAST}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def needed() -> list[Path]:
    """The sources that importing the engine loads."""
    script = f"{LEAST}import sys\nfor m in list(sys.modules.values()): print(getattr(m, '__file__', ''))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = [Path(line) for line in done.stdout.splitlines() if line]
    return [path for path in loaded if path.is_relative_to(ROOT / "runtime")]


def test_it_keeps_to_the_syntax_of_python_3_10() -> None:
    """TensorRT 8.6 has no wheel for a newer one."""
    sources = needed()
    assert {path.stem for path in sources} >= {"engine", "builder", "runner", "errors", "recorded_outputs"}
    for path in sources:
        ast.parse(path.read_text(encoding="utf-8"), path.name, feature_version=(3, 10))


def python310() -> str | None:
    """A Python 3.10 of this machine that starts."""
    homes = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))
    for program in ("python3.10", *map(str, homes)):
        with contextlib.suppress(OSError):
            if subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0:
                return program
    return None


def test_it_imports_under_python_3_10() -> None:
    """With an older standard library too; numpy may be absent there, and is pretended then."""
    program = python310()
    if program is None:
        pytest.skip("no Python 3.10 here; its syntax is checked all the same")
    script = (
        "import importlib.util, sys, unittest.mock\n"
        "if importlib.util.find_spec('numpy') is None:\n"
        "    for name in ('numpy', 'numpy.typing'): sys.modules[name] = unittest.mock.MagicMock()\n" + LEAST
    )
    done = subprocess.run([program, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
