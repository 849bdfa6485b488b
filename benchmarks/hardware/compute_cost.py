"""Arithmetic and memory traffic of a network, counted from its ONNX graph.

Operations are the multiplications and additions of convolutions and matrix products, two per weight and
position. Activations, residual additions and pooling are left out; they are about a hundredth of that.

Bytes are the traffic of a good implementation without caches between layers. A convolution or matrix product
reads its input and weights and writes its output, an addition reads its second operand, a pooling reads its
input and writes its output; everything else is fused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import shape_inference

FLOAT_BYTES = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ComputeCost:
    """Cost of one call of a network.

    Args:
        flop_per_item: Multiplications and additions for one item of the batch.
        weight_bytes: Bytes of the weights in float32, read once per call.
        activation_bytes_per_item: Bytes read and written for one item of the batch.
    """

    flop_per_item: int
    weight_bytes: int
    activation_bytes_per_item: int

    def flop(self, batch: int) -> int:
        """Return the operations of one call."""
        return batch * self.flop_per_item

    def moved_bytes(self, batch: int, *, value_bytes: int = FLOAT_BYTES) -> int:
        """Return the bytes that one call moves.

        Args:
            batch: Number of items.
            value_bytes: Bytes of a weight or activation: 4 in float32, 1 in int8.
        """
        return (self.weight_bytes + batch * self.activation_bytes_per_item) * value_bytes // FLOAT_BYTES


def compute_cost_of(path: Path) -> ComputeCost:
    """Count the cost of a graph.

    Args:
        path: ONNX graph with one input, whose first axis is the batch and whose other axes are fixed.

    Returns:
        The cost.

    Raises:
        ValueError: The graph does not determine a shape that is needed.
    """
    model = onnx.load(path)
    (graph_input,) = model.graph.input
    graph_input.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)

    # The outputs of nodes that restore stored weights are weights too.
    weights = {tensor.name for tensor in graph.initializer}
    flop = weight_bytes = activation_bytes = 0
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if inputs and all(name in weights for name in inputs):
            weights.update(node.output)
            continue
        activations = [name for name in inputs if name not in weights]
        out = _size(shapes, node.output[0])
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            flop += 2 * out * _depth(node, shapes)
            weight_bytes += FLOAT_BYTES * sum(_size(shapes, name) for name in inputs if name in weights)
            activation_bytes += FLOAT_BYTES * (out + sum(_size(shapes, name) for name in activations))
        elif node.op_type == "Add" and len(activations) == 2:
            activation_bytes += FLOAT_BYTES * _size(shapes, activations[1])
        elif node.op_type in ("MaxPool", "AveragePool", "ReduceMean", "GlobalAveragePool"):
            activation_bytes += FLOAT_BYTES * (out + _size(shapes, activations[0]))
    return ComputeCost(
        flop_per_item=flop, weight_bytes=weight_bytes, activation_bytes_per_item=activation_bytes
    )


def _depth(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    """Return the number of products that are summed for one output value."""
    weight = shapes[node.input[1]]
    if node.op_type == "Conv":
        # (outputs, inputs / groups, *kernel): already per group.
        return math.prod(weight[1:])
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return weight[1] if transposed else weight[0]
    return weight[-2]


def _size(shapes: dict[str, Shape], name: str) -> int:
    shape = shapes.get(name)
    if shape is None or not all(shape):
        raise ValueError(f"the graph does not determine the shape of {name}")
    return math.prod(shape)
