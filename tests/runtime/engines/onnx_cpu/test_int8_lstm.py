"""Int8 LSTMs: outputs close to float32 for every form of stored weights, and graphs that are left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.onnx_cpu.engine import OnnxRuntimeEngine
from runtime.engines.onnx_cpu.int8 import int8_is_exact
from runtime.engines.onnx_cpu.int8_lstm import quantize_lstms
from runtime.model.bundle import load_bundle

HIDDEN, INPUTS, STEPS = 32, 48, 6

exact_int8 = pytest.mark.skipif(
    not int8_is_exact(), reason="this CPU does not compute int8 exactly (no VNNI)"
)


def head(stored: str, *, directions: int = 1, computed: bool = False) -> bytes:
    """Return an LSTM whose weights are stored as float32, float16 or int8, or computed from an input."""
    rng = np.random.default_rng(4)
    nodes, tensors = [], [numpy_helper.from_array(rng.normal(size=(directions, 8 * HIDDEN)).astype("f"), "b")]
    for name, columns in (("w", INPUTS), ("r", HIDDEN)):
        shape = (directions, 4 * HIDDEN, columns)
        if stored == "int8":
            values = rng.integers(-127, 128, shape, dtype=np.int8)
            scale = rng.uniform(1e-3, 3e-3, 4 * HIDDEN).astype(np.float32)
            tensors += [
                numpy_helper.from_array(values, f"{name}.int8"),
                numpy_helper.from_array(scale, f"{name}.scale"),
            ]
            nodes.append(
                helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=1)
            )
            continue
        weight = rng.normal(scale=0.1, size=shape)
        if stored == "float16":
            tensors.append(numpy_helper.from_array(weight.astype(np.float16), f"{name}.half"))
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
        elif computed:
            tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.half"))
            nodes.append(helper.make_node("Add", [f"{name}.half", f"{name}.half"], [name]))
        else:
            tensors.append(numpy_helper.from_array(weight.astype(np.float32), name))
    direction = "forward" if directions == 1 else "bidirectional"
    nodes.append(
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=HIDDEN, direction=direction)
    )
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, "N", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def outputs(model: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], np.float32)


@exact_int8
@pytest.mark.parametrize("stored", ["int8", "float16", "float32"])
@pytest.mark.parametrize("directions", [1, 2])
def test_an_int8_lstm_is_close_to_float32(stored: str, directions: int) -> None:
    """All states differ by rounding only, and no stored weight is left in the graph twice."""
    model = head(stored, directions=directions)
    rewritten = quantize_lstms(model)
    graph = onnx.load_from_string(rewritten).graph
    assert [node.op_type for node in graph.node] == ["DynamicQuantizeLSTM"]
    assert len(graph.initializer) == 7, "bias, and values, scale and zero point of both weights"
    x = np.random.default_rng(5).normal(size=(STEPS, 3, INPUTS)).astype(np.float32)
    expected, actual = outputs(model, x), outputs(rewritten, x)
    assert np.abs(actual - expected).max() < 0.03
    assert not np.array_equal(actual, expected)


def test_an_lstm_without_constant_weights_is_unchanged() -> None:
    """Computed weights stay in float32."""
    model = head("float32", computed=True)
    assert quantize_lstms(model) == model


@exact_int8
def test_int8_logits_of_the_bundled_model_are_close_to_float32() -> None:
    """The logits of random windows of every length differ by less than 0.02."""
    bundle = load_bundle(None)
    rng = np.random.default_rng(6)
    with OnnxRuntimeEngine(bundle, precision="fp32") as exact, OnnxRuntimeEngine(bundle) as rounded:
        for length in (bundle.min_frames, bundle.window):
            # Features are outputs of a ReLU and mostly small.
            windows = rng.exponential(0.4, (4, length, bundle.feature_dim)).astype(np.float32)
            change = rounded.logits(windows) - exact.logits(windows)
            assert 0 < np.abs(change).max() < 0.02
