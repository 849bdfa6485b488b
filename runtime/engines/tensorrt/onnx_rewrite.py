"""Rewrites a bundle's graphs for TensorRT: weights unpacked, operators of opset 17, precision written in.

The bundle's graphs store weights as int8 or float16 behind a DequantizeLinear or a Cast. TensorRT 8.6 takes
such a node for the order to compute in int8, later ones keep it and may unpack the weights in every run, so
the nodes are folded here into plain weights. TensorRT 8.6 reads operators up to opset 17, and a newer
ReduceMean would lose its axes there. TensorRT 11 knows no precision but the one in the graph: fp16 means that
convolutions and what lies between them are float16, everything else float32.

All of it is done with `onnx`, which comes with unmask but not with every Python that TensorRT 8.6 needs
(3.10). So the module asks for it only when it rewrites, and `export --tensorrt` leaves the rewritten graphs
in the cache: carried to a machine without `onnx`, they are all that building takes (`prepared.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runtime.engines.tensorrt.driver import NAME
from runtime.errors import EngineUnavailable

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Precision = Literal["fp16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")

# Of what this module makes; engines made from another version's graphs are not used.
VERSION = 1
OPSET = 17

# Float16 begins at these. The sums of a pooling and the running state of an LSTM lose by it and gain nothing:
# they are bound by memory and by launches, so they stay float32.
_BEGIN = {"Conv"}
_STAY = {"ReduceMean", "GlobalAveragePool", "LSTM"}
# Nodes whose types are their own business.
_TYPED = {"Cast"}


def rewrite_graph(graph: bytes, precision: Precision) -> bytes:
    """Rewrite one graph of a bundle.

    Args:
        graph: A serialised ONNX model, as in the bundle.
        precision: `fp16` or `fp32`; inputs and outputs keep their types in either.

    Returns:
        The serialised ONNX model for TensorRT.

    Raises:
        EngineUnavailable: `onnx` is not installed, or the graph holds something that cannot be rewritten.
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
    _fold(onnx, model)
    _lower(onnx, model)
    if precision == "fp16":
        _to_half(onnx, model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _fold(onnx: Any, model: onnx.ModelProto) -> None:
    """Replace what unpacks stored weights by the weights."""
    graph = model.graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "Cast") and all(name in arrays for name in node.input):
            arrays[node.output[0]] = _unpacked(onnx, node, [arrays[name] for name in node.input])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    tensors = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        for name, array in arrays.items()
        if name in used
    ]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)


def _unpacked(onnx: Any, node: onnx.NodeProto, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Cast":
        return arrays[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))
    scale = arrays[1]
    shape = [1] * arrays[0].ndim
    if scale.ndim:
        shape[attributes.get("axis", 1)] = -1
    values = arrays[0].astype(np.float32)
    if len(arrays) > 2:
        values = values - arrays[2].astype(np.float32).reshape(shape)
    return np.asarray(values * scale.reshape(shape), np.float32)


def _lower(onnx: Any, model: onnx.ModelProto) -> None:
    """Write the operators as opset 17 has them."""
    newest = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if newest > OPSET:
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "ReduceMean":
                _lower_reduction(onnx, node, constants)
            elif _changed(onnx, node.op_type, newest):
                raise EngineUnavailable(
                    NAME,
                    f"the operator {node.op_type} of opset {newest} is not known to every TensorRT",
                    "use --engine onnxruntime",
                )
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:], model.opset_import[:]
    model.graph.initializer.extend(kept)
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))


def _changed(onnx: Any, operator: str, newest: int) -> bool:
    """Tell whether an operator means something else, or nothing, in opset 17."""
    try:
        then, now = (onnx.defs.get_schema(operator, version) for version in (OPSET, newest))
    except onnx.defs.SchemaError:
        return True
    return bool(then.since_version != now.since_version)


def _lower_reduction(onnx: Any, node: onnx.NodeProto, constants: dict[str, Any]) -> None:
    """Move the axes of a reduction from its second input to the attribute that they were."""
    kept = [item for item in node.attribute if item.name == "keepdims"]
    if len(node.input) > 1:
        if node.input[1] not in constants:
            raise EngineUnavailable(
                NAME, f"{node.name or node.op_type} has axes that are computed", "use --engine onnxruntime"
            )
        axes = onnx.numpy_helper.to_array(constants[node.input[1]]).ravel().tolist()
        kept.append(onnx.helper.make_attribute("axes", axes))
        del node.input[1:]
    del node.attribute[:]
    node.attribute.extend(kept)


def _to_half(onnx: Any, model: onnx.ModelProto) -> None:
    """Type convolutions and what follows them as float16, with casts where float32 meets it."""
    graph, full, half = model.graph, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == full}
    types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    casts: dict[tuple[str, int], str] = {}
    halved: dict[str, Any] = {}
    nodes: list[Any] = []

    def wanted(name: str, kind: int) -> str:
        """Give the name under which a tensor has a type, casting it if nobody has yet."""
        if name in weights:
            if kind == full:
                return name
            if name not in halved:
                halved[name] = _half_weight(onnx, weights[name])
            return str(halved[name].name)
        if types.get(name) not in (full, half) or types[name] == kind:
            return name
        if (name, kind) not in casts:
            casts[name, kind] = f"{name}.{'half' if kind == half else 'full'}"
            nodes.append(onnx.helper.make_node("Cast", [name], [casts[name, kind]], to=kind))
        return casts[name, kind]

    for node in graph.node:
        if node.op_type in _TYPED:
            types[node.output[0]] = onnx.helper.get_attribute_value(node.attribute[0])
            nodes.append(node)
            continue
        follows = node.op_type not in _STAY and any(types.get(name) == half for name in node.input)
        kind = half if node.op_type in _BEGIN or follows else full
        inputs = [wanted(name, kind) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        types.update(dict.fromkeys(node.output, kind))
        nodes.append(node)
    for value in graph.output:
        if types.get(value.name) == half:
            _give_full(onnx, nodes, value.name)
    used = {name for node in nodes for name in node.input}
    tensors = [*graph.initializer, *halved.values()]
    kept = [tensor for tensor in tensors if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _half_weight(onnx: Any, tensor: onnx.TensorProto) -> Any:
    array = onnx.numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    if not np.isfinite(small).all():
        raise EngineUnavailable(
            NAME, f"the weight {tensor.name} is beyond the range of float16", "use --precision fp32"
        )
    return onnx.numpy_helper.from_array(small, f"{tensor.name}.half")


def _give_full(onnx: Any, nodes: list[Any], name: str) -> None:
    """Make a graph's output float32 although what computes it is not."""
    inner = f"{name}.half"
    for node in nodes:
        for ports in (node.input, node.output):
            for i, port in enumerate(ports):
                if port == name:
                    ports[i] = inner
    nodes.append(onnx.helper.make_node("Cast", [inner], [name], to=onnx.TensorProto.FLOAT))
