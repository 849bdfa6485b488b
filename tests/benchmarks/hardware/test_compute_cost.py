"""Cost of a graph: against hand counts and against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.hardware.compute_cost import ComputeCost, compute_cost_of
from runtime.model.bundle import DEFAULT_BUNDLE, load_bundle
from runtime.model.manifest import BACKBONE_FILE


def write(path: Path, nodes: list[Any], weights: dict[str, np.ndarray], shape: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_cost_of_a_grouped_convolution(tmp_path: Path) -> None:
    """int8 weights count as float32, and restoring them costs nothing."""
    path = write(
        tmp_path / "conv.onnx",
        [
            helper.make_node("DequantizeLinear", ["small", "scale"], ["kernel"], axis=0),
            helper.make_node("Conv", ["in", "kernel", "bias"], ["map"], group=2, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["map"], ["active"]),
            helper.make_node("Add", ["active", "map"], ["out"]),
        ],
        {
            "small": np.zeros((8, 2, 3, 3), np.int8),
            "scale": np.ones(8, np.float32),
            "bias": np.zeros(8, np.float32),
        },
        ["N", 4, 5, 6],
    )
    outputs = 8 * 5 * 6
    cost = compute_cost_of(path)
    assert cost.flop_per_item == 2 * outputs * 2 * 3 * 3
    assert cost.weight_bytes == 4 * (8 * 2 * 3 * 3 + 8)
    # In and out of the convolution, and the second operand of the addition.
    assert cost.activation_bytes_per_item == 4 * (4 * 5 * 6 + outputs + outputs)
    assert cost.flop(3) == 3 * cost.flop_per_item
    assert cost.moved_bytes(3) == cost.weight_bytes + 3 * cost.activation_bytes_per_item


@pytest.mark.parametrize("transposed", [0, 1])
def test_cost_of_a_matrix_product(tmp_path: Path, transposed: int) -> None:
    """The weight of a Gemm may be transposed."""
    path = write(
        tmp_path / "gemm.onnx",
        [helper.make_node("Gemm", ["in", "weight"], ["out"], transB=transposed)],
        {"weight": np.zeros((7, 16) if transposed else (16, 7), np.float32)},
        ["N", 16],
    )
    assert compute_cost_of(path) == ComputeCost(
        flop_per_item=2 * 7 * 16, weight_bytes=4 * 7 * 16, activation_bytes_per_item=4 * (16 + 7)
    )


def test_an_unknown_shape_is_an_error(tmp_path: Path) -> None:
    """A shape that the graph does not determine does not count as zero."""
    path = write(
        tmp_path / "free.onnx",
        [helper.make_node("MatMul", ["in", "weight"], ["out"])],
        {"weight": np.zeros((16, 7), np.float32)},
        ["N", "T", 16],
    )
    with pytest.raises(ValueError, match="does not determine"):
        compute_cost_of(path)


def test_cost_of_the_backbone_equals_that_of_torch() -> None:
    """Folding and rounding do not change the arithmetic of the trained network."""
    import torch

    from train.models.detector import Backbone

    macs = 0

    def count(module: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output[0].numel() * module.weight[0].numel()

    network = Backbone().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        size = load_bundle(DEFAULT_BUNDLE).input_size
        network(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    cost = compute_cost_of(DEFAULT_BUNDLE / BACKBONE_FILE)
    assert cost.flop_per_item == 2 * macs
    # 23 million weights, as published, without the classifier.
    assert 4 * 22.9e6 < cost.weight_bytes < 4 * 23.1e6
