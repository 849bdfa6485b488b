"""The GPU benchmark without a GPU, on a fake GPU, and its arithmetic on given timings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from rich.console import Console

import unmask
from benchmarks.hardware.compute_cost import compute_cost_of
from benchmarks.harness.benchmark_record import quantity
from benchmarks.suites.gpu import benchmark as gpu
from benchmarks.suites.gpu import tensorrt_worker
from benchmarks.suites.gpu.benchmark import GpuConfig, results_path, run_gpu, run_worker
from benchmarks.suites.gpu.tensorrt_worker import MIN_CALLS, WARMUP_CALLS, call_ms
from benchmarks.suites.gpu.timing_series import TimingSeries, faces_sustained, tensorrt_series
from benchmarks.suites.gpu.torch_variants import TypedBackbone
from export.parity import engine_check
from export.parity.restored_detector import restored_detector
from runtime.engines import recorded_outputs
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.tensorrt.engine import TensorRTEngine
from runtime.errors import EngineUnavailable
from runtime.model.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from tests.support import fake_gpu


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> NoReturn:
        raise EngineUnavailable("tensorrt", "there is no NVIDIA driver on this machine", "")

    monkeypatch.setattr(gpu, "probe", missing)


@pytest.mark.usefixtures("no_driver")
def test_a_missing_gpu_is_reported_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The error is raised before anything is loaded or written."""
    out = tmp_path / "gpu.json"
    assert unmask.run(["bench", "gpu", "--json", str(out)]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line == (
        "unmask: `unmask bench gpu` needs an NVIDIA GPU: there is no NVIDIA driver on this machine; "
        "run it on a machine that has one"
    )
    assert not out.exists()


def test_torch_without_gpu_support_is_reported_as_such(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a driver, but a torch built for CPUs, the error names torch."""
    monkeypatch.setattr(gpu, "probe", lambda: fake_gpu.GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert unmask.run(["bench", "gpu"]) == 2
    assert "PyTorch cannot use the GPU" in capfd.readouterr().err
    assert unmask.run(["bench", "gpu", "--batch", "8,none"]) == 2
    assert "--batch" in capfd.readouterr().err


def test_a_call_is_timed_after_its_warm_up() -> None:
    """The warm-up is excluded, and a minimum number of calls is timed."""
    calls = []
    spent = call_ms(lambda: calls.append(1), seconds=0.0)
    assert len(spent) == MIN_CALLS
    assert len(calls) == WARMUP_CALLS + MIN_CALLS
    assert all(value >= 0 for value in spent)


def test_faces_are_counted_at_the_best_batch() -> None:
    """Each crop makes a window; the medians count."""
    series = TimingSeries("x", "float16", {1: [1.0, 1.0, 99.0], 64: [4.0, 4.0, 4.0]}, {1: [1.0], 64: [2.4]})
    # One: 1000 / 2 crops a second; 64: 64000 / 6.4 of them.
    assert faces_sustained(series, rate_hz=10.0) == pytest.approx(1000.0)
    assert faces_sustained(series, rate_hz=5.0) == pytest.approx(2000.0)


def test_timings_of_the_workers_are_read() -> None:
    """Timings with and without CUDA graphs; a precision that did not run has none."""
    spent = {"backbone": {"1": [1.0], "8": [2.0]}, "head": {"1": [0.5], "8": [0.6]}}
    found: dict[str, dict[str, Any]] = {
        "fp16": {"ms": spent, "ms_without_graphs": spent},
        "fp32": {"failed": "no memory"},
    }
    series = tensorrt_series(found)
    assert [one.name for one in series] == ["TensorRT fp16", "TensorRT fp16 without CUDA graphs"]
    assert series[0].limit == "float16"
    assert series[0].backbone == {1: [1.0], 8: [2.0]}


def test_the_record_is_named_after_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default file name has the name of the GPU."""
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    assert results_path(fake_gpu.GPU) == tmp_path / "results/gpu-pretend-9000.json"
    assert (tmp_path / "results").is_dir()


@pytest.mark.parametrize("python", ["/bin/false", "/no/such/python"])
def test_a_failed_worker_is_reported_and_the_rest_measured(
    bundle: Bundle, tmp_path: Path, python: str
) -> None:
    """After a crash or with a missing Python, the other rows are measured."""
    recorded, timings = run_worker(
        bundle,
        "fp32",
        GpuConfig(tensorrt_python=Path(python), batches=[1], seconds=0.1),
        crops=tmp_path / "crops.npz",
        folder=tmp_path,
        console=Console(stderr=True),
    )
    assert recorded is None
    assert "exited with code 1" in timings["failed"] or "No such file" in timings["failed"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the worker in this process, on a fake GPU."""
    fake_gpu.install(monkeypatch)
    pretended = partial(
        TensorRTEngine,
        trt=fake_gpu.Trt("11"),
        cuda=fake_gpu.Cuda(1 << 34),
        cuda_driver=fake_gpu.CudaDriver(),
        gpu=fake_gpu.GPU,
    )
    monkeypatch.setattr(tensorrt_worker, "TensorRTEngine", pretended)
    monkeypatch.setattr(tensorrt_worker, "WARMUP_CALLS", 0)
    monkeypatch.setattr(tensorrt_worker, "MIN_CALLS", 1)

    real = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        if command[:3] != [sys.executable, "-m", "benchmarks.suites.gpu.tensorrt_worker"]:
            return real(command, **options)
        return type("Done", (), {"returncode": tensorrt_worker.main(command[3:]), "stderr": ""})()

    monkeypatch.setattr("benchmarks.suites.gpu.benchmark.subprocess.run", run)
    return run


@pytest.mark.usefixtures("worker")
def test_one_run_records_all_measurements(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engines, timings, parity, limits and faces are in the tables and in the record, with the GPU's name."""
    monkeypatch.setattr(gpu, "probe", lambda: fake_gpu.GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine_check, "PORTRAIT_CLIPS", 1)
    limits = {name: quantity([100.0], "TFLOP/s", better="higher") for name in ("float32", "float16")}
    copies = {"device": quantity([4000.0], "GB/s", better="higher")}
    eager = TimingSeries("torch eager float32", "float32", {1: [5.0], 2: [6.0]}, {1: [1.0], 2: [1.0]})
    monkeypatch.setattr(
        gpu, "measure_torch", lambda *given, **options: (limits, copies, [eager], ["x did not run: y"])
    )
    out = tmp_path / "gpu.json"
    assert run_gpu(GpuConfig(batches=(1, 2), seconds=0.0, json_out=out)) == 0
    record = json.loads(out.read_text())
    assert record["gpu"]["name"] == "Pretend 9000"
    assert record["gpu"]["architecture"] == "sm_90"
    # onnxruntime, and OpenVINO where it is installed.
    libraries = 1 + (find_spec("openvino") is not None)
    int8 = ["int8"] * libraries if OnnxRuntimeEngine(bundle).precision == "int8" else []
    assert [row["precision"] for row in record["parity"]["engines"]] == ["fp32", *int8, "fp16", "fp32"]
    assert all(row["passed"] for row in record["parity"]["engines"])
    assert record["tensorrt"]["fp16"]["inspected"]["backbone"]["layers"] == 1
    assert record["tensorrt"]["fp16"]["open_s"] >= 0
    for name in ("TensorRT fp16, backbone, 2", "TensorRT fp32 without CUDA graphs, head, 1", "GEMM float16"):
        assert record["figures"][name]["n"] >= 1
    crop_hz = bundle.sample_hz / bundle.feature_every
    assert record["faces"]["torch eager float32"] == pytest.approx(2 / 7e-3 / crop_hz)
    cost = compute_cost_of(bundle.backbone)
    assert record["backbone"]["flop_per_crop"] == cost.flop_per_item
    assert record["notes"] == ["x did not run: y"]
    printed = capsys.readouterr().out
    for words in (
        "batch 2 p50 / p90 / p99",
        "torch eager float32",
        f"faces with {crop_hz:g} crops a second",
        "max Δlogit",
    ):
        assert words in printed
    # The share of the limit of the torch series.
    assert f"{2 * cost.flop_per_item / 6e-3 / 1e14:.1%}" in printed


@pytest.mark.usefixtures("worker")
def test_verdicts_that_flip_fail_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The record is written, with a note."""
    monkeypatch.setattr(gpu, "probe", lambda: fake_gpu.GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine_check, "PORTRAIT_CLIPS", 1)
    monkeypatch.setattr(gpu, "measure_torch", lambda *given, **options: (_limits(), {}, [], []))

    def wrong(*given: Any, **options: Any) -> Any:
        outputs = recorded_outputs.record_outputs(*given, **options)
        outputs.logits[:] += 1.0
        return outputs

    monkeypatch.setattr(tensorrt_worker, "record_outputs", wrong)
    out = tmp_path / "gpu.json"
    assert run_gpu(GpuConfig(batches=(1,), seconds=0.0, json_out=out)) == 2
    assert any("differs from torch" in note for note in json.loads(out.read_text())["notes"])


def _limits() -> dict[str, Any]:
    return {name: quantity([100.0], "TFLOP/s", better="higher") for name in ("float32", "float16")}


def test_torch_in_another_type_gives_the_same_features(bundle: Bundle) -> None:
    """The alternatives compute the same features as the engine, normalised and returned in float32."""
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (1, bundle.input_size, bundle.input_size, 3), np.uint8))
    with torch.inference_mode():
        expected = restored_detector(bundle).backbone(crops)
        given = TypedBackbone(restored_detector(bundle).backbone, torch.bfloat16)(crops)
    assert given.dtype == torch.float32
    assert (given - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(given, expected)
