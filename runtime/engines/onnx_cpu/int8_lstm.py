"""Int8 arithmetic for the LSTM of a head: five times as fast as float32 where int8 sums are exact.

    graph = quantize_lstms(head.read_bytes())

An LSTM reads all of its recurrent weights at every step. In float32 those of the bundled head take 4 MB, more
than the nearest caches hold; in int8 they take a quarter. Inputs and states are rounded to 8 bits by the
range that they have at each step, so no ranges need to be measured at export. Weights that the bundle stores
as int8 are used unchanged.

Measured on the windows of 55 held-out videos with the bundled head: 2.4 to 0.46 ms of CPU time for a window
of 16 features, logits changed by at most 0.013 at a standard deviation of 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# Operators of onnxruntime itself.
_DOMAIN = "com.microsoft"
_WEIGHTS = (1, 2)  # inputs W and R of the operator LSTM
_OPTIONAL_INPUTS = 8  # X, W, R, B, sequence_lens, initial_h, initial_c, P


def quantize_lstms(model: bytes) -> bytes:
    """Rewrite the LSTMs of a model with constant weights for int8 arithmetic.

    Args:
        model: Serialised model with weights stored in any form.

    Returns:
        Serialised model with the same inputs and outputs; unchanged if it has no such LSTM.
    """
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    tensors: dict[str, NDArray[Any]] = {}
    rewritten = False
    for node in graph.node:
        if node.op_type != "LSTM" or any(item.name == "layout" and item.i for item in node.attribute):
            continue
        weights = [_int8(node.input[index], arrays, producers) for index in _WEIGHTS]
        if any(weight is None for weight in weights):
            continue
        names = [*node.input, *[""] * (_OPTIONAL_INPUTS - len(node.input))]
        for index, weight in zip(_WEIGHTS, weights, strict=True):
            assert weight is not None
            name, (values, scale) = names[index], weight
            names[index] = f"{name}.transposed"
            names += [f"{name}.gate_scale", f"{name}.gate_zero"]
            tensors[f"{name}.transposed"] = np.ascontiguousarray(values.transpose(0, 2, 1))
            tensors[f"{name}.gate_scale"] = scale
            tensors[f"{name}.gate_zero"] = np.zeros(scale.shape, np.int8)
        node.op_type, node.domain = "DynamicQuantizeLSTM", _DOMAIN
        del node.input[:]
        node.input.extend(names)
        rewritten = True
    if not rewritten:
        return model
    _remove_unused(graph)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return bytes(proto.SerializeToString())


def _int8(
    name: str, arrays: dict[str, NDArray[Any]], producers: dict[str, onnx.NodeProto]
) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Return weights `(directions, 4 * hidden, inputs)` as int8, with one scale per direction and gate."""
    node = producers.get(name)
    if node is None:
        return _rounded(arrays[name]) if name in arrays else None
    stored = arrays.get(node.input[0])
    if stored is None:
        return None
    if node.op_type == "Cast":
        return _rounded(stored.astype(np.float32))
    per_gate = any(item.name == "axis" and item.i == 1 for item in node.attribute)
    if node.op_type != "DequantizeLinear" or len(node.input) != 2 or not per_gate:
        return None
    scale = np.broadcast_to(arrays[node.input[1]].astype(np.float32), stored.shape[:2])
    return stored, np.ascontiguousarray(scale)


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scale = np.maximum(np.abs(weight).max(axis=2) / 127, 1e-12).astype(np.float32)
    return np.rint(weight / scale[..., None]).astype(np.int8), scale


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the stored weights that no node reads any more, and the nodes that converted them."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    nodes = [node for node in graph.node if set(node.output) & read]
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
