"""Rewrites narrow grouped convolutions into wider ones that onnxruntime has fast kernels for.

ResNeXt's first stages convolve 4 and 8 channels a group. onnxruntime's blocked kernels take groups of whole
blocks only (16 channels with AVX-512, 8 with AVX2) and fall back to one small matrix product per group and
two changes of layout for the others. Several groups as one, with zeros where they do not meet, are a few per
cent more arithmetic and give the same sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# Channels of one block with AVX-512; of two with AVX2.
BLOCK = 16
# Of every product so many are with a zero; beyond that, the fallback is the faster one.
MOST_JOINED = 4


def regrouped(model: bytes) -> bytes:
    """Join narrow groups of convolutions.

    Args:
        model: A serialised ONNX model; weights may be stored as float16 behind a Cast or as int8, one scale
            per filter, behind a DequantizeLinear, and stay so.

    Returns:
        A serialised model with the same inputs and outputs, which computes the same.
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
        joined = _joined(array, groups.i) if groups is not None else 1
        if joined > 1:
            assert groups is not None
            weight.CopyFrom(numpy_helper.from_array(_widen(array, groups.i, joined), weight.name))
            groups.i //= joined
    return bytes(proto.SerializeToString())


def _restores(node: onnx.NodeProto) -> bool:
    """Tell whether a node turns stored weights into float32 in such a way that a zero stays a zero."""
    if node.op_type == "Cast":
        return True
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    # A third input would be the zero's place. One scale per filter goes with any number of channels.
    return node.op_type == "DequantizeLinear" and len(node.input) == 2 and axis == 0


def _joined(weight: NDArray[Any], groups: int) -> int:
    """Say how many groups of a convolution should become one."""
    filters, channels = weight.shape[0] // groups, weight.shape[1]
    if groups == 1 or channels % BLOCK == 0:
        return 1
    for joined in range(2, MOST_JOINED + 1):
        if groups % joined == 0 and channels * joined % BLOCK == 0 and filters * joined % BLOCK == 0:
            return joined
    return 1


def _widen(weight: NDArray[Any], groups: int, joined: int) -> NDArray[Any]:
    """Give weights `(filters, channels of a group, h, w)` the channels of their neighbours, as zeros."""
    filters, channels, *window = weight.shape
    parts = weight.reshape(groups // joined, joined, filters // groups, channels, *window)
    wide = np.zeros((groups // joined, joined, filters // groups, joined, channels, *window), weight.dtype)
    for place in range(joined):
        wide[:, place, :, place] = parts[:, place]
    return wide.reshape(filters, joined * channels, *window)
