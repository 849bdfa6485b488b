"""How much arithmetic and how many bytes a network costs, counted from its ONNX graph.

Counted is what cannot be left out: the multiplications and additions of convolutions and matrix matrix_products, two
per weight and position. Activations, additions of branches and pooling come to about a hundredth of that.

Bytes are those that a good implementation has to move if no cache held anything between two layers: each
convolution or product reads its input and its weights and writes its output; an addition reads its second
operand, a pooling its input; everything else is done on the way.
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
    """States what one call costs.

    Args:
        flop_per_item: Multiplications and additions for one item of the batch.
        weight_bytes: Weights as they are computed with, float32: read once a call.
        activation_bytes_per_item: Read and written for one item of the batch.
    """

    flop_per_item: int
    weight_bytes: int
    activation_bytes_per_item: int

    def flop(self, batch: int) -> int:
        """Give the operations of one call."""
        return batch * self.flop_per_item

    def moved_bytes(self, batch: int) -> int:
        """Give the bytes that one call moves."""
        return self.weight_bytes + batch * self.activation_bytes_per_item


def compute_cost_of(path: Path) -> ComputeCost:
    """Count what a graph costs.

    Args:
        path: An ONNX graph with one input, whose first axis is the batch and whose others are fixed.

    Returns:
        Its cost.

    Raises:
        ValueError: A shape that is needed cannot be told from the graph.
    """
    model = onnx.load(path)
    (taken,) = model.graph.input
    taken.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)

    # Weights may be stored small and restored by a node or two: what those give is a weight still.
    weights = {tensor.name for tensor in graph.initializer}
    flop = weight_bytes = activation_bytes = 0
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if inputs and all(name in weights for name in inputs):
            weights.update(node.output)
            continue
        kept = [name for name in inputs if name not in weights]
        out = _size(shapes, node.output[0])
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            flop += 2 * out * _depth(node, shapes)
            weight_bytes += FLOAT_BYTES * sum(_size(shapes, name) for name in inputs if name in weights)
            activation_bytes += FLOAT_BYTES * (out + sum(_size(shapes, name) for name in kept))
        elif node.op_type == "Add" and len(kept) == 2:
            activation_bytes += FLOAT_BYTES * _size(shapes, kept[1])
        elif node.op_type in ("MaxPool", "AveragePool", "ReduceMean", "GlobalAveragePool"):
            activation_bytes += FLOAT_BYTES * (out + _size(shapes, kept[0]))
    return ComputeCost(
        flop_per_item=flop, weight_bytes=weight_bytes, activation_bytes_per_item=activation_bytes
    )


def _depth(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    """Give how many matrix_products one value of the output is the sum of."""
    weight = shapes[node.input[1]]
    if node.op_type == "Conv":
        # (outputs, inputs / groups, *kernel): the groups are in it already.
        return math.prod(weight[1:])
    if node.op_type == "Gemm":
        flipped = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return weight[1] if flipped else weight[0]
    return weight[-2]


def _size(shapes: dict[str, Shape], name: str) -> int:
    shape = shapes.get(name)
    if shape is None or not all(shape):
        raise ValueError(f"the graph does not tell the shape of {name}")
    return math.prod(shape)
