"""Rewritten graphs compute the same numbers as the bundle's, in types that every TensorRT reads."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.tensorrt.onnx_rewrite import OPSET, Precision, rewrite_graph
from runtime.errors import EngineUnavailable
from runtime.model.bundle import DEFAULT_BUNDLE, Bundle, load_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEFAULT_BUNDLE)


def run(graph: bytes, batch: NDArray[np.generic]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(output)


def types_of(model: onnx.ModelProto, operator: str) -> set[int]:
    """Return the element types of all inputs of one kind of operator."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.input)
    }
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    return {types[name] for node in inferred.node if node.op_type == operator for name in node.input if name}


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("fp16", 1e-2)])
def test_outputs_stay_the_same(bundle: Bundle, precision: Precision, allowed: float) -> None:
    """fp32 outputs equal the bundle's; fp16 changes features by less than a hundredth of the largest."""
    crops = np.random.default_rng(0).integers(0, 256, (3, bundle.input_size, bundle.input_size, 3), np.uint8)
    raw = bundle.backbone.read_bytes()
    features = run(raw, crops)
    error = np.abs(run(rewrite_graph(raw, precision), crops) - features).max() / np.abs(features).max()
    assert error <= allowed
    if precision == "fp16":
        assert error > 0
    windows = np.ascontiguousarray(np.broadcast_to(features[:1], (2, bundle.window, bundle.feature_dim)))
    raw = bundle.head.read_bytes()
    np.testing.assert_allclose(
        run(rewrite_graph(raw, precision), windows), run(raw, windows), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graph_has_the_form_that_tensorrt_reads(bundle: Bundle, precision: Precision) -> None:
    """Opset 17, plain weights, axes as an attribute, uint8 input and float32 output."""
    model = onnx.load_model_from_string(rewrite_graph(bundle.backbone.read_bytes(), precision))
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert [entry.version for entry in model.opset_import] == [OPSET]
    assert graph.node[0].op_type == "Cast"
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert not {node.op_type for node in graph.node} & {"DequantizeLinear", "QuantizeLinear"}
    (mean,) = (node for node in graph.node if node.op_type == "ReduceMean")
    assert len(mean.input) == 1
    assert {item.name: list(item.ints) or item.i for item in mean.attribute} == {
        "axes": [2, 3],
        "keepdims": 0,
    }
    half = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    assert types_of(model, "Conv") == types_of(model, "Add") == types_of(model, "Relu") == {half}
    # Normalisation and pooling are float32 in both precisions.
    assert types_of(model, "Sub") == types_of(model, "ReduceMean") == {TensorProto.FLOAT}


def test_lstm_stays_float32(bundle: Bundle) -> None:
    """Its state sums over the whole window."""
    model = onnx.load_model_from_string(rewrite_graph(bundle.head.read_bytes(), "fp16"))
    assert types_of(model, "LSTM") == {TensorProto.FLOAT}


def graph(*nodes: onnx.NodeProto, weight: NDArray[np.generic], opset: int = 18) -> bytes:
    return bytes(
        helper.make_model(
            helper.make_graph(
                nodes,
                "graph",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 4, 4])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "C", "H", "W"])],
                [numpy_helper.from_array(weight, "w")],
            ),
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=8,
        ).SerializeToString()
    )


def test_output_of_a_float16_node_stays_float32() -> None:
    """A graph that ends with a convolution gets a final cast."""
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    raw = graph(conv, weight=np.full((2, 1, 3, 3), 0.1, np.float32))
    x = np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
    output = run(rewrite_graph(raw, "fp16"), x)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, run(raw, x), atol=5e-3)


def test_unsupported_graph_is_reported() -> None:
    """The message names an operator that opset 17 defines otherwise, or a weight beyond float16."""
    split = helper.make_node("Split", ["x"], ["y", "z"], num_outputs=2, axis=2)
    with pytest.raises(EngineUnavailable, match="not every TensorRT supports the operator Split of opset 18"):
        rewrite_graph(graph(split, weight=np.zeros(1, np.float32)), "fp32")
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    raw = graph(conv, weight=np.full((1, 1, 3, 3), 7e4, np.float32))
    with pytest.raises(EngineUnavailable, match=r"w is beyond the range of float16; use --precision fp32"):
        rewrite_graph(raw, "fp16")
