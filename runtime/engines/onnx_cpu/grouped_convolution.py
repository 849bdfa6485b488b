"""Merging of narrow convolution groups into wider ones, for which onnxruntime has fast kernels.

The first stages of ResNeXt have groups of 4 and 8 channels. onnxruntime's blocked kernels take groups of
whole blocks only (16 channels with AVX-512, 8 with AVX2); for others it runs one small matrix product per
group and changes the layout twice. Several groups merged into one, with zero weights between them, give the
same sums for a few per cent more arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# Channels of one block with AVX-512; of two with AVX2.
BLOCK = 16
# Merging n groups multiplies the arithmetic by n; beyond this, the unmerged form is faster.
MAX_MERGED = 4


def merge_narrow_groups(model: bytes) -> bytes:
    """Merge narrow groups of convolutions.

    Args:
        model: Serialised ONNX model. Weights stored as float16 behind a Cast, or as int8 with one scale per
            filter behind a DequantizeLinear, stay in that form.

    Returns:
        Serialised model with the same inputs, outputs and results.
    """
    proto = onnx.load_model_from_string(model)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    origin = {name: name for name in stored}
    readers: dict[str, int] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
        if _restores(node):
            origin[node.output[0]] = node.input[0]
    for node in proto.graph.node:
        if node.op_type != "Conv" or readers[node.input[1]] > 1:
            continue
        weight = stored.get(origin.get(node.input[1], ""))
        if weight is None or readers[weight.name] > 1:
            continue
        groups = next((item for item in node.attribute if item.name == "group"), None)
        array = numpy_helper.to_array(weight)
        merged = _merged(array, groups.i) if groups is not None else 1
        if merged > 1:
            assert groups is not None
            weight.CopyFrom(numpy_helper.from_array(_widen(array, groups.i, merged), weight.name))
            groups.i //= merged
    return bytes(proto.SerializeToString())


def _restores(node: onnx.NodeProto) -> bool:
    """Return whether a node converts stored weights to float32 and keeps zeros."""
    if node.op_type == "Cast":
        return True
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    # A third input would be a zero point. One scale per filter is independent of the number of channels.
    return node.op_type == "DequantizeLinear" and len(node.input) == 2 and axis == 0


def _merged(weight: NDArray[Any], groups: int) -> int:
    """Return how many groups of a convolution to merge into one."""
    filters, channels = weight.shape[0] // groups, weight.shape[1]
    if groups == 1 or channels % BLOCK == 0:
        return 1
    for merged in range(2, MAX_MERGED + 1):
        if groups % merged == 0 and channels * merged % BLOCK == 0 and filters * merged % BLOCK == 0:
            return merged
    return 1


def _widen(weight: NDArray[Any], groups: int, merged: int) -> NDArray[Any]:
    """Extend weights `(filters, channels of a group, h, w)` by zeros for the merged groups."""
    filters, channels, *window = weight.shape
    parts = weight.reshape(groups // merged, merged, filters // groups, channels, *window)
    wide = np.zeros((groups // merged, merged, filters // groups, merged, channels, *window), weight.dtype)
    for place in range(merged):
        wide[:, place, :, place] = parts[:, place]
    return wide.reshape(filters, merged * channels, *window)
