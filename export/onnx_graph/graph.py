"""Export of a torch network as an ONNX graph for the runtime, with weights in their stored type."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxscript import ir
from torch import Tensor, nn
from torch.export import Dim

from export.errors import GraphUnsupported
from export.onnx_graph.lstm import onnx_stored, with_onnx_lstms
from export.onnx_graph.stored_weight import MIN_STORED, StoredWeight

OPSET = 18
# The oldest IR version with opset 18, so that old versions of onnx can read the graph.
IR_VERSION = 8


def backbone_graph(
    backbone: nn.Module, input_size: int, stored: Mapping[str, StoredWeight]
) -> onnx.ModelProto:
    """Export the backbone: `crops` uint8 `(N, H, W, 3)` -> `features` float32 `(N, D)`.

    Args:
        backbone: Folded and rounded, in evaluation mode.
        input_size: H and W.
        stored: Result of `round_weights`.

    Returns:
        The checked graph; N is dynamic, and the first node is a Cast.

    Raises:
        GraphUnsupported: The graph is not one that the runtime can run.
    """
    example = torch.zeros(2, input_size, input_size, 3, dtype=torch.uint8)
    model = _export(backbone, example, {0: "N"}, "crops", "features")
    if model.graph.node[0].op_type != "Cast":
        first = model.graph.node[0].op_type
        raise GraphUnsupported("backbone", f"its first node is {first}, but TensorRT needs it to be Cast")
    return _with_stored_weights(model, onnx_stored(backbone, "backbone", stored), "backbone")


def head_graph(head: nn.Module, feature_dim: int, stored: Mapping[str, StoredWeight]) -> onnx.ModelProto:
    """Export the head: `features` float32 `(N, T, D)` -> `logit` float32 `(N,)`.

    Args:
        head: Rounded, in evaluation mode.
        feature_dim: D.
        stored: Result of `round_weights`.

    Returns:
        The checked graph; N and T are dynamic.

    Raises:
        GraphUnsupported: The graph is not one that the runtime can run.
    """
    example = torch.zeros(2, 3, feature_dim)
    model = _export(with_onnx_lstms(head), example, {0: "N", 1: "T"}, "features", "logit")
    return _with_stored_weights(model, onnx_stored(head, "head", stored), "head")


def _export(
    network: nn.Module, example: Tensor, dynamic: Mapping[int, str], input_name: str, output_name: str
) -> onnx.ModelProto:
    with _exporter_warnings():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            # A named Dim may silently become static; with DYNAMIC that is an error.
            dynamic_shapes=(dict.fromkeys(dynamic, Dim.DYNAMIC),),
            verbose=False,
        )
    assert program is not None
    # By default large constants are not folded.
    onnxscript.optimizer.optimize(program.model, input_size_limit=1 << 30, output_size_limit=1 << 30)
    return _strip_metadata(ir.serde.serialize_model(program.model), dynamic)


def _strip_metadata(model: onnx.ModelProto, dynamic: Mapping[int, str]) -> onnx.ModelProto:
    """Remove source lines and paths of this machine, which the exporter writes into every node."""
    graph = model.graph
    nodes = []
    for old in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        nodes.append(node)
    for value in (*graph.input, *graph.output):
        value.ClearField("metadata_props")
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_param"):
                dim.dim_param = dynamic[axis]
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    return helper.make_model(
        helper.make_graph(nodes, "unmask", graph.input, graph.output, graph.initializer),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="unmask",
    )


def _with_stored_weights(
    model: onnx.ModelProto, weights: Sequence[StoredWeight], graph_name: str
) -> onnx.ModelProto:
    """Replace float32 initializers by their stored form and a node that restores them."""
    unmatched = {_fingerprint(weight.restored()): weight for weight in weights}
    graph = model.graph
    initializers, restoring = [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        weight = unmatched.pop(_fingerprint(array), None) if array.size >= MIN_STORED else None
        if weight is None:
            initializers.append(tensor)
            continue
        stored_name = f"{tensor.name}.{weight.values.dtype.name}"
        initializers.append(numpy_helper.from_array(weight.values, stored_name))
        if weight.scale is None:
            restoring.append(
                helper.make_node("Cast", [stored_name], [tensor.name], to=onnx.TensorProto.FLOAT)
            )
        else:
            initializers.append(numpy_helper.from_array(weight.scale, f"{tensor.name}.scale"))
            restoring.append(
                helper.make_node(
                    "DequantizeLinear", [stored_name, f"{tensor.name}.scale"], [tensor.name], axis=weight.axis
                )
            )
    if unmatched:
        raise GraphUnsupported(graph_name, f"{len(unmatched)} of its weights were changed by the exporter")
    nodes = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    # The first node must stay the cast of the input.
    graph.node.extend([nodes[0], *restoring, *nodes[1:]])
    onnx.checker.check_model(model, full_check=True)
    return model


def _fingerprint(array: NDArray[np.generic]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).data).digest()


@contextmanager
def _exporter_warnings() -> Iterator[None]:
    """Silence the warnings that torch's exporter raises about its own code, and no others."""
    with warnings.catch_warnings():
        for message in (
            r"`isinstance\(treespec, LeafSpec\)` is deprecated",
            "_check_is_size will be removed",
        ):
            warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        yield
