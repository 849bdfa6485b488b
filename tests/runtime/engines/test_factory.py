"""Engines: outputs, checks of inputs, choice, and equality of the buffered path and the full clip."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.tensorrt.driver import ADVICE
from runtime.engines.tensorrt.onnx_rewrite import Precision
from runtime.errors import EngineFailed, EngineUnavailable, EngineUnknown
from runtime.model.bundle import Bundle, load_bundle, write_manifest
from runtime.pipeline.window import FaceWindow


@pytest.fixture
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


@pytest.fixture
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


def reference(path: Path, **inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the output of ONNX's reference evaluator."""
    model = onnx.load(path)
    # The evaluator knows DequantizeLinear from opset 19 on; nothing else that is used differs from 18.
    model.opset_import[0].version = 19
    (output,) = ReferenceEvaluator(model).run(None, inputs)
    return np.asarray(output, np.float32)


def test_outputs_equal_the_reference_evaluator(
    engine: Engine, bundle: Bundle, crops: NDArray[np.uint8]
) -> None:
    """Features and logits equal those of ONNX's reference evaluator."""
    features = engine.features(crops)
    expected = reference(bundle.backbone, crops=crops)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    logits = engine.logits(features[None, :8])
    expected = reference(bundle.head, features=features[None, :8])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert (features.dtype.name, features.shape) == ("float32", (12, 16))
    assert (logits.dtype.name, logits.shape) == ("float32", (1,))


def test_buffered_path_equals_the_full_clip(engine: Engine, bundle: Bundle, crops: NDArray[np.uint8]) -> None:
    """Crop by crop through backbone and buffer gives the logit of the window's crops in one batch."""
    buffer = FaceWindow(bundle.window, bundle.feature_dim)
    for i, crop in enumerate(crops):
        buffer.push(i / bundle.sample_hz, crop, engine.features(crop[None])[0])
        if len(buffer) < bundle.min_frames:
            continue
        clip = crops[max(0, i + 1 - bundle.window) : i + 1]
        full = engine.logits(engine.features(clip)[None])
        buffered = engine.logits(buffer.window_features()[None])
        np.testing.assert_allclose(buffered, full, rtol=0, atol=1e-5)


def test_windows_in_a_batch_are_independent(engine: Engine, crops: NDArray[np.uint8]) -> None:
    """The logit of a face does not depend on the other faces in the batch."""
    features = engine.features(crops)
    windows = np.stack([features[0:4], features[4:8], features[8:12]])
    alone = [engine.logits(window[None])[0] for window in windows]
    np.testing.assert_allclose(engine.logits(windows), alone, rtol=0, atol=1e-5)
    assert len({round(float(logit), 4) for logit in alone}) == 3


def test_an_empty_batch_gives_an_empty_output(engine: Engine) -> None:
    """onnxruntime's own LSTM would abort the process."""
    assert engine.features(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 16)
    assert engine.logits(np.empty((0, 4, 16), np.float32)).shape == (0,)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 3, 32, 32), np.uint8),
        ((1, 64, 64, 3), np.uint8),
        ((32, 32, 3), np.uint8),
        ((1, 32, 32, 3), np.float32),
    ],
)
def test_wrong_crops_are_refused(engine: Engine, shape: tuple[int, ...], dtype: type) -> None:
    """Crops of another layout, size or type raise a ValueError."""
    with pytest.raises(ValueError, match=r"crops must be uint8 \(N, 32, 32, 3\)"):
        engine.features(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((4, 16), np.float32, r"windows must be float32 \(N, T, 16\)"),
        ((1, 4, 17), np.float32, r"windows must be float32 \(N, T, 16\)"),
        ((1, 4, 16), np.float64, r"windows must be float32 \(N, T, 16\)"),
        ((1, 3, 16), np.float32, "windows must hold 4 to 8 samples, not 3"),
        ((1, 9, 16), np.float32, "windows must hold 4 to 8 samples, not 9"),
    ],
)
def test_wrong_windows_are_refused(engine: Engine, shape: tuple[int, ...], dtype: type, words: str) -> None:
    """Windows of another length, width or type raise a ValueError."""
    with pytest.raises(ValueError, match=words):
        engine.logits(np.zeros(shape, dtype))


def test_nan_outputs_are_an_error(engine: Engine) -> None:
    """NaN inside the network raises an error instead of becoming a score."""
    windows = np.full((1, 4, 16), np.nan, np.float32)
    with pytest.raises(EngineFailed, match="not finite"):
        engine.logits(windows)


def test_an_engine_works_only_inside_with(bundle: Bundle) -> None:
    """Calls outside `with` raise an error; a second block loads the graphs again."""
    engine = OnnxRuntimeEngine(bundle, threads=1)
    with pytest.raises(RuntimeError, match="closed"):
        engine.features(np.zeros((1, 32, 32, 3), np.uint8))
    for _ in range(2):
        with engine:
            assert engine.features(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 16)
            with pytest.raises(RuntimeError, match="open already"), engine:
                pass
    with pytest.raises(RuntimeError, match="closed"):
        engine.logits(np.zeros((1, 4, 16), np.float32))


def test_an_engine_can_be_called_from_several_threads(engine: Engine, crops: NDArray[np.uint8]) -> None:
    """Simultaneous calls return the same as calls in sequence."""
    expected = engine.features(crops)
    outputs: dict[int, NDArray[np.float32]] = {}

    def work(i: int) -> None:
        outputs[i] = engine.features(crops)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(outputs[i], expected) for i in range(4))


def test_a_graph_that_cannot_run_raises_engine_failed(
    tmp_path: Path, make_bundle: Callable[[Path], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """An intact bundle with a broken graph gives one line of error and prints nothing."""
    path = make_bundle(tmp_path / "bundle")
    model = onnx.load(path / "backbone.onnx")
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "kernel_int8")
    kernel.CopyFrom(numpy_helper.from_array(np.zeros((16, 5, 7, 7), np.int8), "kernel_int8"))
    manifest = load_bundle(path)
    onnx.save(model, path / "backbone.onnx")
    write_manifest(path, manifest)
    with pytest.raises(EngineFailed) as caught, open_engine(load_bundle(path)) as engine:
        engine.features(np.zeros((1, 32, 32, 3), np.uint8))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that there is no NVIDIA driver."""

    def missing() -> NoReturn:
        raise EngineUnavailable("tensorrt", "there is no NVIDIA driver on this machine", ADVICE)

    monkeypatch.setattr("runtime.engines.tensorrt.driver.probe", missing)
    monkeypatch.setattr("runtime.engines.tensorrt.engine.probe", missing)


@pytest.mark.usefixtures("no_driver")
def test_errors_of_unknown_and_unavailable_engines_have_advice(bundle: Bundle) -> None:
    """A wrong name lists the right ones; an engine that cannot run has a reason and an alternative."""
    for ask in (lambda choice: open_engine(bundle, choice), detector_infer):
        with pytest.raises(EngineUnknown, match="choose one of auto, onnxruntime, openvino, tensorrt"):
            ask("caffe")
        with pytest.raises(EngineUnavailable, match=r"no NVIDIA driver .*; use --engine onnxruntime"):
            ask("tensorrt")


@pytest.mark.usefixtures("no_driver")
def test_auto_logs_its_choice(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    """`auto` logs the engine and the reason."""
    with caplog.at_level(logging.INFO, logger="runtime.engines.factory"):
        engine = open_engine(bundle, "auto", threads=2)
    (line,) = caplog.messages
    assert engine.describe() in line
    assert "no TensorRT, there is no NVIDIA driver" in line
    assert engine.describe().endswith("on the CPU, 2 threads")
    assert isinstance(engine, Engine)


def test_auto_without_a_gpu_is_the_fastest_engine_of_the_cpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers of a cluster that have no GPU of their own use what `auto` uses on a machine without one."""

    def found() -> NoReturn:
        pytest.fail("TensorRT was tried")

    with caplog.at_level(logging.INFO, logger="runtime.engines.factory"):
        expected = open_engine(bundle, "auto", threads=1).describe()
        monkeypatch.setattr("runtime.engines.tensorrt.engine.probe", found)
        assert open_engine(bundle, "auto", threads=1, gpu=False).describe() == expected
    assert "without a GPU" in caplog.messages[-1]


def test_threads_must_be_positive(bundle: Bundle) -> None:
    """0 is refused instead of being taken for the default."""
    with pytest.raises(ValueError, match="at least 1"):
        open_engine(bundle, threads=0)


def test_detector_network_runs_at_any_size() -> None:
    """The face detector's network accepts frames of different sizes."""
    infer = detector_infer("onnxruntime", threads=1)
    for height, width in ((192, 320), (352, 640)):
        outputs = infer(np.zeros((1, 3, height, width), np.float32))
        assert [output.shape[2:] for output in outputs] == [(height // 4, width // 4)] * len(outputs)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_outputs_equal_onnxruntime(precision: Precision) -> None:
    """Features and logits of the bundled model on a GPU are close to those of the CPU."""
    bundle = load_bundle()
    try:
        on_gpu = open_engine(bundle, "tensorrt", precision=precision)
    except EngineUnavailable as error:
        pytest.skip(error.reason)
    size = bundle.input_size
    crops = np.random.default_rng(3).integers(0, 256, (70, size, size, 3), dtype=np.uint8)
    allowed = 1e-3 if precision == "fp32" else 2e-2
    with open_engine(bundle, "onnxruntime") as cpu, on_gpu as gpu:
        features = cpu.features(crops)
        scale = np.abs(features).max()
        for count in (1, 1, 1, 8, 8, 8, 70):
            assert np.abs(gpu.features(crops[:count]) - features[:count]).max() <= allowed * scale
        for length in (bundle.min_frames, bundle.window):
            windows = np.stack([features[i : i + length] for i in range(20)])
            for _ in range(3):
                assert np.abs(gpu.logits(windows) - cpu.logits(windows)).max() <= 1e-3
