"""Rewriting of a bundle's ONNX graphs for TensorRT: unpacked weights, opset 17, precision in the graph.

The bundle stores weights as int8 or float16 behind a DequantizeLinear or Cast node. TensorRT 8.6 takes such a
node as a request to compute in int8; later versions may unpack the weights in every run. The weights are
therefore unpacked here. TensorRT 8.6 reads operators up to opset 17, and would ignore the axes of a newer
ReduceMean. TensorRT 11 takes the precision from the graph alone: `fp16` means that convolutions and the
operators between them are float16 and everything else is float32.

Rewriting needs `onnx`, which comes with unmask but may be missing in a Python 3.10 environment for TensorRT
8.6. `onnx` is therefore imported only when it is used, and `unmask export --tensorrt` stores the rewritten
graphs in the cache for machines without `onnx` (`prepared.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.engines.tensorrt.driver import NAME
from runtime.errors import EngineUnavailable

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Precision = Literal["fp16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")

# Version of the rewritten graphs; engines built from another version's graphs are not used.
REWRITE_VERSION = 1
OPSET = 17

# Operators that start a float16 region. The sums of a pooling and the state of an LSTM lose accuracy in
# float16 and gain no speed, being limited by memory and kernel launches: they stay float32.
_FLOAT16 = {"Conv"}
_FLOAT32 = {"ReduceMean", "GlobalAveragePool", "LSTM"}


def rewrite_graph(graph: bytes, precision: Precision) -> bytes:
    """Rewrite one graph of a bundle for TensorRT.

    Args:
        graph: Serialized ONNX model from the bundle.
        precision: `fp16` or `fp32`. Inputs and outputs keep their types in both.

    Returns:
        The serialized ONNX model for TensorRT.

    Raises:
        EngineUnavailable: `onnx` is not installed, or the graph holds an operator or weight that cannot be
            rewritten.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise EngineUnavailable(
            NAME,
            "onnx is not installed, and the model's graphs have not been prepared for TensorRT",
            "install onnx, or run `unmask export --tensorrt` where it is and copy the cache here",
        ) from None
    model = onnx.load_model_from_string(graph)
    _fold_weights(model)
    _lower_opset(model)
    if precision == "fp16":
        _Float16Rewriter(model).rewrite()
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _fold_weights(model: onnx.ModelProto) -> None:
    """Replace nodes that unpack stored weights by the unpacked weights."""
    from onnx import numpy_helper

    graph = model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and all(name in arrays for name in node.input):
            arrays[node.output[0]] = _unpack(node, [arrays[name] for name in node.input])
        else:
            nodes.append(node)
    tensors = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    _replace(graph, nodes, tensors)


def _unpack(node: onnx.NodeProto, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    from onnx import helper

    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Cast":
        return arrays[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    scale = arrays[1]
    shape = [1] * arrays[0].ndim
    if scale.ndim:
        shape[attributes.get("axis", 1)] = -1
    values = arrays[0].astype(np.float32)
    if len(arrays) > 2:
        values = values - arrays[2].astype(np.float32).reshape(shape)
    return np.asarray(values * scale.reshape(shape), np.float32)


def _lower_opset(model: onnx.ModelProto) -> None:
    """Convert the operators to opset 17."""
    from onnx import helper

    newest = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if newest > OPSET:
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "ReduceMean":
                _lower_reduction(node, constants)
            elif _changed_since_opset_17(node.op_type, newest):
                raise EngineUnavailable(
                    NAME,
                    f"not every TensorRT supports the operator {node.op_type} of opset {newest}",
                    "use --engine onnxruntime",
                )
    _replace(model.graph, list(model.graph.node), list(model.graph.initializer))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))


def _changed_since_opset_17(operator: str, newest: int) -> bool:
    from onnx import defs

    try:
        old, new = (defs.get_schema(operator, version) for version in (OPSET, newest))
    except defs.SchemaError:
        return True
    return bool(old.since_version != new.since_version)


def _lower_reduction(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    """Move the axes of a reduction from its second input to an attribute, as in opset 17."""
    from onnx import helper, numpy_helper

    attributes = [item for item in node.attribute if item.name == "keepdims"]
    if len(node.input) > 1:
        if node.input[1] not in constants:
            raise EngineUnavailable(
                NAME, f"{node.name or node.op_type} has axes that are computed", "use --engine onnxruntime"
            )
        axes = numpy_helper.to_array(constants[node.input[1]]).ravel().tolist()
        attributes.append(helper.make_attribute("axes", axes))
        del node.input[1:]
    del node.attribute[:]
    node.attribute.extend(attributes)


class _Float16Rewriter:
    """Conversion of convolutions and the operators after them to float16, with casts at the borders."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import TensorProto

        self.graph = model.graph
        self.float32, self.float16 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
        self.weights = {t.name: t for t in self.graph.initializer if t.data_type == self.float32}
        self.float16_weights: dict[str, onnx.TensorProto] = {}
        # Element type of each tensor that the nodes so far produce.
        self.types: dict[str, int] = {v.name: v.type.tensor_type.elem_type for v in self.graph.input}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def rewrite(self) -> None:
        from onnx import helper

        for node in self.graph.node:
            if node.op_type == "Cast":
                self.types[node.output[0]] = helper.get_attribute_value(node.attribute[0])
                self.nodes.append(node)
                continue
            follows = any(self.types.get(name) == self.float16 for name in node.input)
            is_float16 = node.op_type in _FLOAT16 or (follows and node.op_type not in _FLOAT32)
            element_type = self.float16 if is_float16 else self.float32
            inputs = [self._converted(name, element_type) for name in node.input]
            del node.input[:]
            node.input.extend(inputs)
            self.types.update(dict.fromkeys(node.output, element_type))
            self.nodes.append(node)
        for value in self.graph.output:
            if self.types.get(value.name) == self.float16:
                self._cast_output(value.name)
        del self.graph.value_info[:]
        _replace(self.graph, self.nodes, [*self.graph.initializer, *self.float16_weights.values()])

    def _converted(self, name: str, element_type: int) -> str:
        """Return the name of a tensor in a float type; add a cast or a float16 weight if it has none."""
        from onnx import helper

        if name in self.weights:
            if element_type == self.float32:
                return name
            if name not in self.float16_weights:
                self.float16_weights[name] = _float16_weight(self.weights[name])
            return self.float16_weights[name].name
        current = self.types.get(name)
        if current not in (self.float32, self.float16) or current == element_type:
            return name
        if (name, element_type) not in self.casts:
            cast = f"{name}.{'half' if element_type == self.float16 else 'full'}"
            self.casts[name, element_type] = cast
            self.nodes.append(helper.make_node("Cast", [name], [cast], to=element_type))
        return self.casts[name, element_type]

    def _cast_output(self, name: str) -> None:
        """Keep a graph output float32 although a float16 node computes it."""
        from onnx import helper

        inner = f"{name}.half"
        for node in self.nodes:
            for tensors in (node.input, node.output):
                for i, tensor in enumerate(tensors):
                    if tensor == name:
                        tensors[i] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [name], to=self.float32))


def _float16_weight(tensor: onnx.TensorProto) -> onnx.TensorProto:
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        converted = array.astype(np.float16)
    if not np.isfinite(converted).all():
        raise EngineUnavailable(
            NAME, f"the weight {tensor.name} is beyond the range of float16", "use --precision fp32"
        )
    return numpy_helper.from_array(converted, f"{tensor.name}.half")


def _replace(
    graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], tensors: Iterable[onnx.TensorProto]
) -> None:
    """Set the nodes of a graph, and keep the weights that they use."""
    nodes = list(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in tensors if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
