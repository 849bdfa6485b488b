"""Int8 arithmetic: measured ranges, the rewritten graph, and use only where the CPU computes it exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.onnx_cpu import engine as cpu
from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.onnx_cpu.int8 import (
    METADATA,
    activation_ranges,
    add_activation_ranges,
    int8_is_exact,
    quantize,
)
from runtime.errors import EngineUnavailable
from runtime.model.bundle import Bundle, load_bundle, write_manifest
from runtime.model.manifest import BACKBONE_FILE

exact_int8 = pytest.mark.skipif(
    not int8_is_exact(), reason="this CPU does not compute int8 exactly (no VNNI)"
)


@pytest.fixture
def crops() -> NDArray[np.uint8]:
    """Smooth images, as faces are; the features of noise would all be alike."""
    coarse = np.random.default_rng(1).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))


@pytest.fixture
def backbone() -> bytes:
    """A stem and a residual block, with weights stored as int8, float16 and float32."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.generic]] = {
        "mean": np.array([[[[120]], [[110]], [[100]]]], np.float32),
        "scale": np.array([[[[60]], [[58]], [[56]]]], np.float32),
        "stem.int8": rng.integers(-127, 128, (16, 3, 7, 7), dtype=np.int8),
        "stem.scale": rng.uniform(5e-4, 1e-3, 16).astype(np.float32),
        "stem.bias": rng.normal(size=16).astype(np.float32),
        "first.float16": rng.normal(scale=0.1, size=(16, 16, 3, 3)).astype(np.float16),
        "first.bias": rng.normal(size=16).astype(np.float32),
        "second": rng.normal(scale=0.1, size=(16, 16, 1, 1)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
        node("DequantizeLinear", ["stem.int8", "stem.scale"], ["stem"], axis=0),
        node("Cast", ["first.float16"], ["first"], to=TensorProto.FLOAT),
        node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Sub", ["planes", "mean"], ["centred"]),
        node("Div", ["centred", "scale"], ["input"]),
        node("Conv", ["input", "stem", "stem.bias"], ["stem.map"], strides=[2, 2], pads=[3, 3, 3, 3]),
        node("Relu", ["stem.map"], ["stem.active"]),
        node("MaxPool", ["stem.active"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pooled", "first", "first.bias"], ["first.map"], pads=[1, 1, 1, 1]),
        node("Relu", ["first.map"], ["first.active"]),
        node("Conv", ["first.active", "second"], ["second.map"]),
        node("Add", ["second.map", "pooled"], ["sum"]),
        node("Relu", ["sum"], ["sum.active"]),
        node("ReduceMean", ["sum.active", "axes"], ["features"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", 32, 32, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.fixture
def bundle(tmp_path: Path, small_bundle: Path, backbone: bytes, crops: NDArray[np.uint8]) -> Bundle:
    """The small bundle with a calibrated backbone."""
    path = tmp_path / "bundle"
    shutil.copytree(small_bundle, path)
    (path / BACKBONE_FILE).write_bytes(add_activation_ranges(backbone, crops))
    write_manifest(path, load_bundle(small_bundle))
    return load_bundle(path)


def features(
    model: bytes, crops: NDArray[np.uint8], *, optimised: Path | None = None, level: str = "ALL"
) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, "ORT_ENABLE_ALL" if level == "ALL" else "ORT_DISABLE_ALL"
    )
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"crops": crops})[0]
    return output


def test_adding_ranges_does_not_change_the_outputs(backbone: bytes, crops: NDArray[np.uint8]) -> None:
    """The features stay equal; a range covers all values that occurred for the crops."""
    model = add_activation_ranges(backbone, crops)
    np.testing.assert_array_equal(features(model, crops), features(backbone, crops))
    ranges = activation_ranges(model)
    assert ranges is not None
    assert set(ranges) == {
        "input", "stem.active", "pooled", "first.active", "second.map", "sum.active"
    }  # fmt: skip
    mean, scale = np.array([[120, 110, 100], [60, 58, 56]], np.float32)[..., None, None]
    pixels = (crops.transpose(0, 3, 1, 2) - mean) / scale
    assert ranges["input"] == pytest.approx((pixels.min(), pixels.max()), rel=1e-5)
    assert ranges["pooled"][1] == ranges["stem.active"][1]
    assert activation_ranges(backbone) is None
    assert activation_ranges(add_activation_ranges(model, crops[:1])) != ranges


def difference(given: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The norm of the difference as a share of the expected norm."""
    return float(np.linalg.norm(given - expected) / np.linalg.norm(expected))


def test_rounding_to_8_bits_changes_features_by_less_than_2_percent(
    backbone: bytes, crops: NDArray[np.uint8]
) -> None:
    """The rewritten graph, its 8-bit values summed in float32, is close to the original on every CPU."""
    rounded = features(quantize(add_activation_ranges(backbone, crops)), crops, level="NONE")
    assert 0 < difference(rounded, features(backbone, crops)) < 0.02


def test_every_convolution_and_sum_becomes_an_int8_one(
    backbone: bytes, crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    """onnxruntime fuses the rewritten graph into integer convolutions and sums and leaves none in float32."""
    features(quantize(add_activation_ranges(backbone, crops)), crops, optimised=tmp_path / "optimised.onnx")
    done = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert done.count("QLinearConv") == 3
    assert done.count("QLinearAdd") == 1
    assert not {"Add", "Conv", "FusedConv"} & set(done)


@exact_int8
def test_integer_sums_equal_the_rounded_graph_in_float32(backbone: bytes, crops: NDArray[np.uint8]) -> None:
    """Integer kernels differ from float32 sums of the same 8-bit values by single rounding steps only."""
    model = quantize(add_activation_ranges(backbone, crops))
    given = features(model, crops)
    assert difference(given, features(model, crops, level="NONE")) < 0.005
    assert difference(given, features(backbone, crops)) < 0.02


def test_stored_weights_are_not_rounded_again(backbone: bytes, crops: NDArray[np.uint8]) -> None:
    """Weights that the bundle stores as int8 are used unchanged."""
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for model in (backbone, quantize(add_activation_ranges(backbone, crops)))
        for tensor in onnx.load_model_from_string(model).graph.initializer
    }
    np.testing.assert_array_equal(stored["stem.per_filter.values"], stored["stem.int8"])
    np.testing.assert_array_equal(stored["stem.per_filter.scale"], stored["stem.scale"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"input": [0, 1]}', '{"input": "no"}', None], ids=str)
def test_unusable_ranges_are_ignored(backbone: bytes, crops: NDArray[np.uint8], text: str | None) -> None:
    """Metadata that is not JSON, names other activations or contains NaN gives no ranges."""
    model = onnx.load_model_from_string(add_activation_ranges(backbone, crops))
    (item,) = (item for item in model.metadata_props if item.key == METADATA)
    ranges = json.loads(item.value)
    item.value = json.dumps({**ranges, "input": [float("nan"), 1.0]}) if text is None else text
    assert activation_ranges(model.SerializeToString()) is None
    with pytest.raises(ValueError, match="no activation ranges"):
        quantize(model.SerializeToString())


def test_ranges_need_crops(backbone: bytes, crops: NDArray[np.uint8]) -> None:
    """Without crops there is nothing to measure."""
    with pytest.raises(ValueError, match="no crops"):
        add_activation_ranges(backbone, crops[:0])


@pytest.mark.parametrize("exact", [True, False])
def test_the_engine_chooses_int8_only_if_bundle_and_cpu_support_it(
    bundle: Bundle, small_bundle: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    """Without ranges or exact sums the engine chooses float32 and refuses int8; float32 can be asked for."""
    monkeypatch.setattr(cpu, "int8_is_exact", lambda: exact)
    engine = OnnxRuntimeEngine(bundle)
    assert engine.precision == ("int8" if exact else "fp32")
    assert engine.describe().endswith(", int8") == exact
    assert OnnxRuntimeEngine(bundle, precision="fp32").precision == "fp32"
    uncalibrated = load_bundle(small_bundle)
    assert OnnxRuntimeEngine(uncalibrated).precision == "fp32"
    with (
        pytest.raises(EngineUnavailable, match="no activation ranges for int8; export it again"),
        OnnxRuntimeEngine(uncalibrated, precision="int8"),
    ):
        pass
    if not exact:
        with (
            pytest.raises(EngineUnavailable, match="int8 sums are not exact on this CPU"),
            OnnxRuntimeEngine(bundle, precision="int8"),
        ):
            pass


def test_a_calibrated_bundle_computes_in_float32_without_exact_int8(
    bundle: Bundle, backbone: bytes, crops: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The float32 path gives the features of the original backbone, whatever ranges the bundle holds."""
    monkeypatch.setattr(cpu, "int8_is_exact", lambda: False)
    with OnnxRuntimeEngine(bundle, threads=1) as engine:
        assert difference(engine.features(crops), features(backbone, crops)) < 1e-5


@exact_int8
def test_the_engine_s_int8_features_are_close_to_float32(bundle: Bundle, crops: NDArray[np.uint8]) -> None:
    """The two precisions of one bundle differ by rounding, and do differ."""
    outputs = {}
    for precision in ("fp32", "int8"):
        with OnnxRuntimeEngine(bundle, threads=1, precision=precision) as engine:
            outputs[precision] = engine.features(crops)
    np.testing.assert_allclose(outputs["int8"], outputs["fp32"], rtol=0.1, atol=0.05)
    assert not np.array_equal(outputs["int8"], outputs["fp32"])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=exact_int8)])
def test_features_do_not_depend_on_the_number_of_threads(
    bundle: Bundle, crops: NDArray[np.uint8], precision: str
) -> None:
    """Row i belongs to crop i, with the same numbers, for any number of threads and crops."""
    with OnnxRuntimeEngine(bundle, threads=1, precision=precision) as engine:  # type: ignore[arg-type]
        expected = np.concatenate([engine.features(crop[None]) for crop in crops])
    for threads in (2, 5):
        with OnnxRuntimeEngine(bundle, threads=threads, precision=precision) as engine:  # type: ignore[arg-type]
            for count in (1, 2, 3, 24):
                np.testing.assert_allclose(engine.features(crops[:count]), expected[:count], rtol=1e-5)


def test_vnni_makes_int8_exact_and_other_architectures_do_not_use_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An x86 CPU with AVX-512 VNNI computes the probe exactly; elsewhere int8 is not used."""
    if "AVX512_ICL" in np.show_config(mode="dicts")["SIMD Extensions"]["found"]:
        assert int8_is_exact()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not int8_is_exact.__wrapped__()
