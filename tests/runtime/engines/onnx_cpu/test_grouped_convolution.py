"""Merging narrow groups of convolutions: fewer and wider groups with the same results."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.onnx_cpu.grouped_convolution import merge_narrow_groups


def model_of(weight: NDArray[np.generic], groups: int, *, stored: str, readers: int = 1) -> bytes:
    """A model of one grouped convolution, or of several that share their weights."""
    channels = groups * weight.shape[1]
    tensors = {"stored": weight}
    nodes = []
    match stored:
        case "float32":
            nodes.append(helper.make_node("Identity", ["x"], ["input"]))
            tensors = {"weight": weight}
        case "float16":
            nodes.append(helper.make_node("Cast", ["stored"], ["weight"], to=TensorProto.FLOAT))
        case "int8":
            tensors["scale"] = np.linspace(0.01, 0.02, weight.shape[0], dtype=np.float32)
            nodes.append(helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"], axis=0))
        case "int8 by channel":
            tensors["scale"] = np.linspace(0.01, 0.02, weight.shape[1], dtype=np.float32)
            nodes.append(helper.make_node("DequantizeLinear", ["stored", "scale"], ["weight"], axis=1))
    taken = "input" if stored == "float32" else "x"
    for number in range(readers):
        nodes.append(
            helper.make_node("Conv", [taken, "weight"], [f"y{number}"], group=groups, pads=[1, 1, 1, 1])
        )
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, channels, 7, 7])],
        [
            helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [2, len(weight), 7, 7])
            for n in range(readers)
        ],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def groups_of(model: bytes) -> list[int]:
    nodes = onnx.load_model_from_string(model).graph.node
    return [item.i for node in nodes for item in node.attribute if item.name == "group"]


def run(model: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return output


def weights(filters: int, channels: int, stored: str) -> NDArray[np.generic]:
    values = np.random.default_rng(0).integers(-127, 128, (filters, channels, 3, 3))
    if stored.startswith("int8"):
        return values.astype(np.int8)
    return (values / 64).astype(stored)


@pytest.mark.parametrize("stored", ["float32", "float16", "int8"])
@pytest.mark.parametrize(("channels", "groups", "left"), [(4, 32, 8), (8, 32, 16)])
def test_narrow_groups_are_merged(stored: str, channels: int, groups: int, left: int) -> None:
    """ResNeXt's groups of 4 and 8 channels become groups of 16; the outputs stay equal."""
    model = model_of(weights(groups * channels, channels, stored), groups, stored=stored)
    merged = merge_narrow_groups(model)
    assert groups_of(merged) == [left]
    onnx.checker.check_model(onnx.load_model_from_string(merged), full_check=True)
    x = np.random.default_rng(1).normal(size=(2, groups * channels, 7, 7)).astype(np.float32)
    np.testing.assert_allclose(run(merged, x), run(model, x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("filters", "channels", "groups"),
    [
        (64, 16, 4),  # wide enough
        (64, 1, 64),  # depthwise convolutions have kernels of their own
        (6, 4, 3),  # no number of groups fills a block
        (64, 64, 1),  # not grouped
    ],
)
def test_other_convolutions_are_unchanged(filters: int, channels: int, groups: int) -> None:
    """Convolutions that would not gain are not merged."""
    model = model_of(weights(filters, channels, "float32"), groups, stored="float32")
    assert groups_of(merge_narrow_groups(model)) == [groups]


@pytest.mark.parametrize(("stored", "readers"), [("int8 by channel", 1), ("int8", 2)])
def test_weights_that_cannot_be_widened_are_unchanged(stored: str, readers: int) -> None:
    """Weights with a scale per channel, and weights shared by two convolutions, are not merged."""
    model = model_of(weights(128, 4, stored), 32, stored=stored, readers=readers)
    assert groups_of(merge_narrow_groups(model)) == [32] * readers
