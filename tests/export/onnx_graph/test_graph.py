"""Exported graphs: same outputs as torch, dynamic N and T, no metadata, small."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.errors import GraphUnsupported
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.graph import backbone_graph, head_graph
from export.onnx_graph.lstm import OnnxLSTM
from export.onnx_graph.rounding import round_weights
from export.onnx_graph.stored_weight import StoredWeight
from runtime.model.manifest import Weights
from tests.export.conftest import DIM, SIZE, SmallModel, make_clips, small_model


def run(graph: onnx.ModelProto, name: str, array: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    output: np.ndarray = session.run(None, {name: array})[0]
    return output


@pytest.mark.parametrize("kind", ["int8", "float16", "float32"])
def test_graphs_compute_what_torch_computes(model: SmallModel, kind: Weights) -> None:
    """For each stored type and any N and T, the graph gives the outputs of torch with the same weights."""
    crops = make_clips(2, 4).reshape(-1, SIZE, SIZE, 3)
    backbone = fold_for_inference(model.backbone, torch.from_numpy(crops[:1]))
    stored = round_weights(backbone, model.head, kind, None)
    graph = backbone_graph(backbone, SIZE, stored)
    head = head_graph(model.head, DIM, stored)
    for n in (1, 5):
        expected = backbone(torch.from_numpy(crops[:n])).numpy()
        np.testing.assert_allclose(run(graph, "crops", crops[:n]), expected, rtol=1e-4, atol=1e-5)
    features = np.random.default_rng(0).normal(size=(3, 7, DIM)).astype(np.float32)
    for n, t in ((1, 1), (1, 7), (3, 4)):
        window = features[:n, :t]
        expected = model.head(torch.from_numpy(window)).numpy()
        np.testing.assert_allclose(run(head, "features", window), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layers", "bidirectional"), [(2, False), (1, True), (2, True)])
def test_deeper_and_bidirectional_heads(layers: int, bidirectional: bool) -> None:
    """Gates, layers and directions are exported in the order of ONNX."""
    model = small_model(layers, bidirectional=bidirectional)
    stored = round_weights(model.backbone, model.head, "int8", None)
    head = head_graph(model.head, DIM, stored)
    window = np.random.default_rng(0).normal(size=(2, 5, DIM)).astype(np.float32)
    expected = model.head(torch.from_numpy(window)).numpy()
    np.testing.assert_allclose(run(head, "features", window), expected, rtol=1e-4, atol=1e-5)
    assert Counter(node.op_type for node in head.graph.node)["LSTM"] == layers


def test_backbone_begins_with_a_cast_and_holds_no_shape_arithmetic(model: SmallModel) -> None:
    """TensorRT needs the cast of the uint8 input first, and computed shapes slow every engine."""
    crops = torch.from_numpy(make_clips(1, 4)[0])
    backbone = fold_for_inference(model.backbone, crops)
    stored = round_weights(backbone, model.head, "int8", None)
    graph = backbone_graph(backbone, SIZE, stored).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert graph.node[0].op_type == "Cast"
    assert kinds["DequantizeLinear"] == 3
    assert not kinds.keys() & {"Shape", "Gather", "Reshape", "BatchNormalization", "Identity"}
    assert [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        SIZE,
        SIZE,
        3,
    ]


def test_graphs_hold_no_paths_of_the_machine(model: SmallModel) -> None:
    """The source lines that the exporter writes into every node are removed."""
    stored = round_weights(model.backbone, model.head, "int8", None)
    content = head_graph(model.head, DIM, stored).SerializeToString()
    for word in (str(Path(__file__).parent), "site-packages", ".py", "stack_trace"):
        assert word.encode() not in content


def test_int8_takes_a_quarter_of_the_size(model: SmallModel) -> None:
    """int8 takes one byte per weight, float16 two, and no weight is stored twice."""
    sizes = {}
    for kind in ("int8", "float16", "float32"):
        head = copy.deepcopy(model.head)
        sizes[kind] = head_graph(head, DIM, round_weights(model.backbone, head, kind, None)).ByteSize()
    weights = 2 * 4 * 64 * 64
    assert sizes["float32"] - sizes["float16"] == pytest.approx(2 * weights, rel=0.05)
    assert sizes["float32"] - sizes["int8"] == pytest.approx(3 * weights, rel=0.05)


def test_a_stored_weight_that_is_not_in_the_graph_is_an_error(model: SmallModel) -> None:
    """If the exporter changed a weight, its stored form would be lost silently."""
    foreign = {"head.other.weight": StoredWeight(np.ones((200, 100), np.float16))}
    with pytest.raises(GraphUnsupported, match="1 of its weights were changed"):
        head_graph(model.head, DIM, foreign)


def test_unsupported_lstms_are_refused() -> None:
    """An LSTM that the ONNX operator computes differently is an error."""
    with pytest.raises(ValueError, match="batch_first"):
        OnnxLSTM(nn.LSTM(4, 4))
    with pytest.raises(ValueError, match="projection"):
        OnnxLSTM(nn.LSTM(4, 4, batch_first=True, proj_size=2))
