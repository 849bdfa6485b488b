"""Machine limits and the shares of them, with given rates and with real libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hardware import machine_limits
from benchmarks.hardware.compute_cost import ComputeCost
from benchmarks.hardware.machine_limits import (
    MatrixProduct,
    copy_gb_per_s,
    fastest_matrix_product,
    matrix_products,
    min_call_s,
)
from benchmarks.harness.errors import SettingInvalid
from benchmarks.suites.roofline import (
    MachineRates,
    RooflineConfig,
    RooflineShares,
    run_roofline,
)
from runtime.engines.cpu import usable_cores
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.model.bundle import DEFAULT_BUNDLE, load_bundle

COST = ComputeCost(flop_per_item=10**9, weight_bytes=4 * 10**6, activation_bytes_per_item=10**6)


def test_the_slower_limit_counts() -> None:
    """With slow memory a call is limited by its bytes, otherwise by its arithmetic."""
    fast_memory = MachineRates(arithmetic="float32", gemm_gops=50.0, copy_gb=100.0)
    assert fast_memory.limit_s(COST, 4) == fast_memory.gemm_s(COST, 4) == pytest.approx(0.08)
    slow_memory = MachineRates(arithmetic="float32", gemm_gops=50.0, copy_gb=0.05)
    assert slow_memory.limit_s(COST, 4) == pytest.approx(8e6 / 0.05e9)
    int8 = MachineRates(arithmetic="int8", gemm_gops=200.0, copy_gb=0.05)
    assert int8.limit_s(COST, 4) == pytest.approx(2e6 / 0.05e9), "int8 moves a quarter of the bytes"


def test_shares() -> None:
    """A call that takes twice the time of its limit has a share of one half."""
    shares = RooflineShares()
    shares.add(0.04, COST, 1, MachineRates(arithmetic="float32", gemm_gops=50.0, copy_gb=100.0))
    shares.add(0.04, COST, 1, MachineRates(arithmetic="float32", gemm_gops=25.0, copy_gb=100.0))
    figures = shares.figures("engine, 1")
    assert figures["engine, 1: share of its arithmetic"].repeats["value"] == pytest.approx((0.5, 1.0))
    assert figures["engine, 1: call"].value == pytest.approx(40.0)


def test_the_fastest_call_counts() -> None:
    """The call is repeated until the time is over, at least once."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    assert 0 <= min_call_s(call, min_total_s=0.001) <= 0.001
    assert calls > 1
    calls = 0
    min_call_s(call, min_total_s=0.0)
    assert calls == 1


def test_every_library_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    """All libraries give the same product, for every shape."""
    monkeypatch.setattr(machine_limits, "SHAPES", ((8, 16, 4), (5, 3, 7)))
    found = list(matrix_products(threads=usable_cores()))
    assert {product.library for product in found} == {"numpy", "onnxruntime", "torch"}
    for shape in machine_limits.SHAPES:
        numbers = [np.asarray(product.run()).reshape(-1) for product in found if product.shape == shape]
        assert len(numbers) == 3
        np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(numbers[2], numbers[0], rtol=1e-5, atol=1e-5)
    assert found[0].flop == 2 * 8 * 16 * 4


def test_every_library_multiplies_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The int8 products of all libraries have the same exact sums."""
    monkeypatch.setattr(machine_limits, "SHAPES", ((32, 64, 32),))
    onnx, torch = matrix_products(1, "int8")
    assert (onnx.library, torch.library, onnx.arithmetic) == ("onnxruntime", "torch", "int8")
    sums = np.asarray(onnx.run()).reshape(32, 32)
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, np.asarray(torch.run()))


def test_the_fastest_product_is_chosen() -> None:
    """The fastest product has the highest rate, not the shortest time."""
    idle = MatrixProduct(library="idle", shape=(1, 1, 1), run=lambda: None)
    busy = MatrixProduct(library="busy", shape=(4096, 4096, 4096), run=lambda: None)
    assert fastest_matrix_product([idle, busy]) is busy
    with pytest.raises(ValueError, match="no matrix product"):
        fastest_matrix_product([])


def test_a_library_without_a_kernel_runs_once() -> None:
    """After a library was ten times slower than the best, its larger shapes are not run."""

    def too_large() -> object:
        raise AssertionError("it was run")

    fast = MatrixProduct(library="fast", shape=(4096, 4096, 4096), run=lambda: None)
    slow = MatrixProduct(library="slow", shape=(1, 1, 1), run=lambda: None)
    assert fastest_matrix_product([fast, slow, replace(slow, run=too_large)]) is fast


def test_memory_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is copied in as many parts as there are threads."""
    monkeypatch.setattr(machine_limits, "COPY_BYTES", 2**20)
    assert copy_gb_per_s(3)() > 0


def test_record_has_all_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each engine is compared with the limit of its own arithmetic, float32 being measured on every CPU."""
    monkeypatch.setattr(machine_limits, "SHAPES", ((64, 64, 64),))
    monkeypatch.setattr(machine_limits, "COPY_BYTES", 2**22)
    out = tmp_path / "roofline.json"
    assert run_roofline(RooflineConfig(batches=[1, 2], repeats=2, model=DEFAULT_BUNDLE, json_out=out)) == 0
    record = json.loads(out.read_text())
    assert record["backbone"]["flop_per_crop"] == 4_314_726_400
    int8 = OnnxRuntimeEngine(load_bundle(DEFAULT_BUNDLE)).precision == "int8"
    kinds = ["int8", "float32"] if int8 else ["float32"]
    assert list(record["gemm"]) == kinds
    shares = {
        name.rpartition(":")[0]: figure["repeats"]["value"]
        for name, figure in record["figures"].items()
        if name.endswith("share of its arithmetic")
    }
    assert [name[-3:] for name in shares] == [", 1", ", 2"] * len(kinds)
    assert all(len(values) == 2 and min(values) > 0 for values in shares.values())
    printed = capsys.readouterr().out
    for kind in kinds:
        assert f"{kind} limit: " in printed
        own = [np.median(values) for name, values in shares.items() if ("int8" in name) == (kind == "int8")]
        assert record["best_share_of_arithmetic"][kind] == pytest.approx(max(own), rel=1e-3)


def test_batch_sizes_below_one_are_refused() -> None:
    """Batch sizes below 1 are an error."""
    with pytest.raises(SettingInvalid, match="--batch 0"):
        run_roofline(RooflineConfig(batches=[0], model=DEFAULT_BUNDLE))
