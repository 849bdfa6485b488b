"""The parity table on the bundled model: its figures, its limits and the recorded outputs it accepts."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import unmask
from export.errors import EnginesDiffer, GraphUnsupported, RecordedOutputsForeign
from export.parity import engine_check
from export.parity.engine_check import CheckOptions, clips_needed, run_check
from export.parity.restored_detector import restored_detector
from export.parity.verdict_parity import VerdictParity, allowed_figures, temporal_logits, verdict_parity
from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.recorded_outputs import load_recorded_outputs, main, record_outputs
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.engines.tensorrt.engine_cache import EngineCache
from runtime.engines.tensorrt.prepared import write_prepared
from runtime.errors import EngineUnavailable, RecordedOutputsInvalid
from runtime.model.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from runtime.model.calibration import Calibration
from tests.support import fake_gpu
from tests.support.small_bundle import write_small_bundle
from tests.support.temporal import random_windows


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


@pytest.fixture(autouse=True)
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer clips, for speed."""
    monkeypatch.setattr(engine_check, "PORTRAIT_CLIPS", 2)


@pytest.fixture
def on_fake_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT on a fake GPU beside the real onnxruntime."""
    fake_gpu.install(monkeypatch)

    def open_(bundle: Bundle, choice: str, **options: Any) -> Engine:
        if choice == "onnxruntime":
            return open_engine(bundle, choice, threads=1)
        return TensorRTEngine(
            bundle,
            cache=EngineCache(tmp_path / "cache"),
            trt=fake_gpu.Trt("11"),
            cuda=fake_gpu.Cuda(1 << 34),
            gpu=fake_gpu.GPU,
            cuda_graphs=False,
            **options,
        )

    monkeypatch.setattr(engine_check, "open_engine", open_)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_(bundle: Bundle, choice: str, **options: Any) -> Engine:
        if choice == "onnxruntime":
            return open_engine(bundle, choice, threads=1)
        raise EngineUnavailable("tensorrt", "there is no NVIDIA driver", "use another")

    monkeypatch.setattr(engine_check, "open_engine", open_)


@pytest.mark.usefixtures("on_fake_gpu")
def test_every_engine_and_precision_has_a_line(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch with the stored weights is compared with onnxruntime and both precisions of TensorRT."""
    rows = run_check(bundle, CheckOptions(json_out=tmp_path / "check.json"))
    libraries = 2 if find_spec("openvino") else 1
    int8 = ["int8"] * libraries if OnnxRuntimeEngine(bundle).precision == "int8" else []
    assert [row.precision for row in rows] == ["fp32", *int8, "fp16", "fp32"]
    figures = [row.parity for row in rows if row.parity is not None]
    windows = 2 * (bundle.window - bundle.min_frames + 1)
    assert [(found.crops, found.windows) for found in figures] == [(2 * bundle.window, windows)] * len(rows)
    onnx, *_, half, full = figures
    assert max(onnx.logit_max, full.logit_max) <= 1e-3
    assert half.logit_max > onnx.logit_max
    assert all(found.logit_mean <= found.logit_max for found in figures)
    record = json.loads((tmp_path / "check.json").read_text())
    assert record["model"]["digest"] == bundle.digest
    assert [entry["passed"] for entry in record["engines"]] == [True] * len(rows)
    assert record["engines"][-2]["logit_max"] == half.logit_max
    printed = capsys.readouterr().out
    assert "Pretend 9000" in printed
    assert printed.count("passed") == len(rows)
    assert "one portrait only" in printed


@pytest.mark.usefixtures("no_gpu")
def test_recorded_outputs_join_the_table(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of another process are accepted for the same crops and the same model only."""
    monkeypatch.setattr(engine_check, "PORTRAIT_CLIPS", 1)
    reference = restored_detector(bundle)
    monkeypatch.setattr(engine_check, "restored_detector", lambda bundle: reference)
    samples, file = tmp_path / "samples.npz", tmp_path / "recorded.npz"
    run_check(bundle, CheckOptions(save_crops=samples))
    clips = np.load(samples)["clips"]
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        outputs = record_outputs(
            engine, clips, precision="fp16", digest=bundle.digest, min_frames=bundle.min_frames
        )
    outputs.save(file)
    loaded = load_recorded_outputs(file)
    np.testing.assert_array_equal(loaded.logits, outputs.logits)
    rows = run_check(bundle, CheckOptions(recorded=[file]))
    assert rows[-1].precision == "fp16"
    assert rows[-1].parity is not None
    assert [row.unavailable for row in rows if row.parity is None] == ["there is no NVIDIA driver"] * 2
    replace(outputs, bundle_digest="0" * 64).save(file)
    with pytest.raises(RecordedOutputsForeign, match="recorded for another model; record them again"):
        run_check(bundle, CheckOptions(recorded=[file]))
    replace(outputs, clips_digest="0" * 64).save(file)
    with pytest.raises(RecordedOutputsForeign, match="recorded for other crops"):
        run_check(bundle, CheckOptions(recorded=[file]))
    file.write_bytes(b"no outputs")
    with pytest.raises(RecordedOutputsInvalid, match="contains no recorded outputs"):
        run_check(bundle, CheckOptions(recorded=[file]))
    # All verdicts flipped: the check fails.
    replace(outputs, logits=outputs.logits + 1e3 * (1 - 2 * (outputs.logits > 0))).save(file)
    with pytest.raises(EnginesDiffer, match=r"in fp16 differs from torch") as caught:
        run_check(bundle, CheckOptions(recorded=[file]))
    assert caught.value.measured > caught.value.allowed


def parity(given: list[float], precision: str = "fp16", *, trained: bool = False) -> VerdictParity:
    expected = np.array([-2.0, -0.1, 0.1, 2.0], np.float32)
    bundle = load_bundle(DEFAULT_BUNDLE)
    return verdict_parity(
        expected,
        np.array(given, np.float32),
        calibration=Calibration(),
        crops=64,
        allowed=allowed_figures(bundle, precision, trained=trained),
    )


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"", b"PK\x03\x04 damaged", b"\x93NUMPY damaged"])
def test_other_files_contain_no_recorded_outputs(tmp_path: Path, content: bytes) -> None:
    """The line quotes no advice that numpy gives to programmers."""
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(
        RecordedOutputsInvalid, match=r"other\.csv: contains no recorded outputs; make it with"
    ):
        load_recorded_outputs(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(
        RecordedOutputsInvalid, match=r"array\.npy: contains no recorded outputs; make it with"
    ):
        load_recorded_outputs(tmp_path / "array.npy")
    with pytest.raises(RecordedOutputsInvalid, match=r"missing: contains no recorded outputs \(no such file"):
        load_recorded_outputs(tmp_path / "missing")


def test_figures_of_a_comparison() -> None:
    """Largest and mean difference of logit and probability, and the number of flipped verdicts."""
    found = parity([-2.0, 0.1, 0.1, 2.4])
    assert found.logit_max == pytest.approx(0.4)
    assert found.logit_mean == pytest.approx(0.15)
    changes = [
        1 / (1 + np.exp(-0.1)) - 1 / (1 + np.exp(0.1)),
        1 / (1 + np.exp(-2.4)) - 1 / (1 + np.exp(-2.0)),
    ]
    assert found.p_fake_max == pytest.approx(max(changes))
    assert found.p_fake_mean == pytest.approx(sum(changes) / 4)
    assert (found.flips, found.flipped, found.windows, found.crops) == (1, 0.25, 4, 64)
    assert found.failures == ["p_fake_mean", "flipped"]


@pytest.mark.parametrize(
    ("given", "precision", "trained", "failures"),
    [
        ([-2.0, -0.1, 0.1, 2.0], "fp32", False, []),
        ([-2.002, -0.1, 0.1, 2.0], "fp32", False, ["logit_max"]),
        ([-2.002, -0.1, 0.1, 2.0], "fp16", False, []),
        ([-2.002, -0.1, 0.1, 2.0], "fp32", True, []),
        ([-2.2, -0.1, 0.1, 2.0], "fp32", True, ["p_fake_max"]),
        ([-2.0, -0.1, -0.001, 2.0], "fp16", False, ["flipped"]),
        ([float("nan"), -0.1, 0.1, 2.0], "fp16", False, ["p_fake_mean"]),
        ([float("nan"), -0.1, 0.1, 2.0], "fp32", False, ["logit_max"]),
    ],
)
def test_limits_of_a_comparison(
    given: list[float], precision: str, trained: bool, failures: list[str]
) -> None:
    """Equal weights in float32: the logits are limited; otherwise p_fake and the verdicts; NaN fails."""
    assert parity(given, precision, trained=trained).failures == failures


def test_limits_come_from_the_manifest(bundle: Bundle) -> None:
    """Limits in the manifest come before those of this version."""
    figures = {"gate_a": {"allowed": 5e-4}, "gate_b": {"p_fake_allowed": 0.02, "flipped_allowed": 0.001}}
    strict = msgspec.structs.replace(bundle, parity=figures)
    assert allowed_figures(strict, "fp32", trained=False) == {"logit_max": 5e-4, "flipped": 0.001}
    assert allowed_figures(strict, "fp32", trained=True) == {"p_fake_max": 0.02, "flipped": 0.001}
    assert allowed_figures(strict, "int8", trained=False) == {"p_fake_mean": 0.02, "flipped": 0.001}
    assert allowed_figures(strict, "int8", trained=False, portrait=True) == {"p_fake_mean": 0.02}
    assert "flipped" in allowed_figures(strict, "fp32", trained=False, portrait=True)
    assert (
        allowed_figures(msgspec.structs.replace(bundle, parity={}), "fp32", trained=False)["logit_max"]
        == 1e-3
    )


def test_minimum_number_of_clips() -> None:
    """At least 2000 crops and 200 windows, whatever the window."""
    for window, shortest in ((16, 4), (80, 10), (8, 8), (300, 300)):
        clips = clips_needed(window, shortest)
        assert clips * window >= 2000
        assert clips * (window - shortest + 1) >= 200


def test_a_bundle_of_another_detector_is_refused(small_bundle_of_tests: Bundle) -> None:
    """A bundle of another network cannot be rebuilt in torch."""
    with pytest.raises(GraphUnsupported, match="no LSTM with the name"):
        restored_detector(small_bundle_of_tests)


@pytest.fixture
def small_bundle_of_tests(tmp_path: Path) -> Bundle:
    """A bundle whose head shares no names with that of training."""
    return load_bundle(write_small_bundle(tmp_path / "small"))


def test_recording_reports_why_it_cannot_run(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and exit code 2, with prepared graphs and without."""

    def missing() -> None:
        raise EngineUnavailable("tensorrt", "there is no NVIDIA driver", "use another")

    monkeypatch.setattr("runtime.engines.tensorrt.engine.probe", missing)
    samples = tmp_path / "samples.npz"
    np.savez(samples, clips=np.zeros((1, bundle.window, 8, 8, 3), np.uint8))
    arguments = [str(samples), str(tmp_path / "recorded.npz"), "--prepared"]
    assert main([*arguments, str(tmp_path)]) == 2
    assert "no graphs prepared by this version" in capsys.readouterr().err
    folder = write_prepared(bundle, "fp16", EngineCache(tmp_path / "cache"))
    assert main([*arguments, str(folder)]) == 2
    assert capsys.readouterr().err == (
        "unmask: the tensorrt engine cannot run: there is no NVIDIA driver; use another\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL"], ["is already an exported model", "--tensorrt or --check"]),
        (["MODEL", "--out", "x", "--check"], ["leave out --out"]),
        (["MODEL", "--weights", "int8", "--name", "x", "--check"], ["leave out --weights and --name"]),
        (["MODEL", "--tensorrt", "--crops", "x"], ["--check is not given, which --crops needs; add --check"]),
        (["MODEL", "--check", "--precision", "fp16"], ["which --precision needs; add --tensorrt"]),
        (["x", "--out", "y", "--json", "z", "--recorded", "r"], ["--recorded and --json", "add --check"]),
        (["x", "--out", "y", "--save-crops", "z"], ["--save-crops", "add --check"]),
        (["x", "--out", "y", "--hardware-compatible"], ["--hardware-compatible", "add --tensorrt"]),
        (["nowhere"], ["nowhere", "give --out"]),
        (["nowhere", "--out", "x"], ["nowhere", "unmask train fit"]),
        (["MODEL", "--check", "--crops", "nowhere"], ["nowhere", "no such file"]),
        (["MODEL", "--check", "--json", "nowhere/x.json"], ["nowhere/x.json", "no such file"]),
        (["MODEL", "--check", "--save-crops", "nowhere/x.npz"], ["nowhere/x.npz", "no such file"]),
        (["MODEL", "--check", "--recorded", "nowhere.npz"], ["nowhere.npz", "contains no recorded outputs"]),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Each mistake is one line, with exit code 2."""
    given = [str(DEFAULT_BUNDLE) if argument == "MODEL" else argument for argument in arguments]
    assert unmask.run(["export", *given]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    for word in words:
        assert word in line


def test_engines_are_built_ahead_of_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`--tensorrt` writes graphs and engines to the cache; without TensorRT, only the graphs."""
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))
    trt = fake_gpu.Trt("rtx")
    monkeypatch.setattr("runtime.engines.tensorrt.builder.load_tensorrt", lambda: trt)
    assert unmask.run(["export", str(DEFAULT_BUNDLE), "--tensorrt", "--precision", "fp32"]) == 0
    out = capfd.readouterr().out
    assert "TensorRT-RTX 1.7.1" in out
    (folder,) = (tmp_path / "tensorrt").iterdir()
    names = [path.name for path in folder.iterdir()]
    assert {"model.json", "backbone.fp32.onnx", "head.fp32.onnx"} <= set(names)
    assert len([name for name in names if name.endswith(".engine")]) == 2

    def missing() -> None:
        raise EngineUnavailable("tensorrt", "TensorRT is not installed", "install it")

    monkeypatch.setattr("runtime.engines.tensorrt.builder.load_tensorrt", missing)
    assert unmask.run(["export", str(DEFAULT_BUNDLE), "--tensorrt"]) == 2
    out, err = capfd.readouterr()
    assert "graphs for TensorRT in fp16" in out
    assert "TensorRT is not installed" in err
    assert (folder / "backbone.fp16.onnx").is_file()


def test_temporal_logits_decide_which_verdicts_flip() -> None:
    """A change across 0 of the head's logit is no flip where the temporal classifier is sure."""
    expected, actual = np.array([-0.1, 0.1], np.float32), np.array([0.1, 0.2], np.float32)
    facts: dict[str, Any] = {"calibration": Calibration(), "crops": 8, "allowed": {}}
    assert verdict_parity(expected, actual, **facts).flips == 1
    sure = np.array([3.0, -3.0], np.float32)
    assert verdict_parity(expected, actual, temporal=sure, **facts).flips == 0
    near = np.array([0.0, -0.15], np.float32)
    assert verdict_parity(expected, actual, temporal=near, **facts).flips == 2


def test_temporal_logits_are_in_the_order_of_the_windows() -> None:
    """Windows of `min_frames` of every clip come first, then longer ones."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    residuals = random_windows(2, 5)
    found = temporal_logits(bundle, residuals)
    assert found is not None
    assert bundle.temporal is not None
    expected = [float(bundle.temporal.logits(residuals[i : i + 1, :n])[0]) for n in (4, 5) for i in (0, 1)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert temporal_logits(bundle, None) is None
