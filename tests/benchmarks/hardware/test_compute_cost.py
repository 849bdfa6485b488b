"""The arithmetic of a graph, held to what can be counted by hand and to what torch does."""

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


def write(path: Path, nodes: list[Any], weights: dict[str, np.ndarray], taken: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_a_convolution_in_groups(tmp_path: Path) -> None:
    """Stored int8 weights count as the float32 that they become, and restoring them costs nothing."""
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
    work = compute_cost_of(path)
    assert work.flop_per_item == 2 * outputs * 2 * 3 * 3
    assert work.weight_bytes == 4 * (8 * 2 * 3 * 3 + 8)
    # In and out of the convolution, and the second operand of the addition.
    assert work.activation_bytes_per_item == 4 * (4 * 5 * 6 + outputs + outputs)
    assert work.flop(3) == 3 * work.flop_per_item
    assert work.moved_bytes(3) == work.weight_bytes + 3 * work.activation_bytes_per_item


@pytest.mark.parametrize("flipped", [0, 1])
def test_a_product(tmp_path: Path, flipped: int) -> None:
    """A Gemm's weight may stand either way."""
    path = write(
        tmp_path / "gemm.onnx",
        [helper.make_node("Gemm", ["in", "weight"], ["out"], transB=flipped)],
        {"weight": np.zeros((7, 16) if flipped else (16, 7), np.float32)},
        ["N", 16],
    )
    assert compute_cost_of(path) == ComputeCost(
        flop_per_item=2 * 7 * 16, weight_bytes=4 * 7 * 16, activation_bytes_per_item=4 * (16 + 7)
    )


def test_a_shape_that_is_not_told(tmp_path: Path) -> None:
    """It is an error, not a network that costs nothing."""
    path = write(
        tmp_path / "free.onnx",
        [helper.make_node("MatMul", ["in", "weight"], ["out"])],
        {"weight": np.zeros((16, 7), np.float32)},
        ["N", "T", 16],
    )
    with pytest.raises(ValueError, match="does not tell"):
        compute_cost_of(path)


def test_the_backbone_as_torch_counts_it() -> None:
    """Folding and rounding leave the arithmetic of the trained network as it was."""
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
    work = compute_cost_of(DEFAULT_BUNDLE / BACKBONE_FILE)
    assert work.flop_per_item == 2 * macs
    # 23 million weights, as published, without the classifier.
    assert 4 * 22.9e6 < work.weight_bytes < 4 * 23.1e6
