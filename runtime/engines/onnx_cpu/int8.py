"""Int8 arithmetic for CPUs that compute it exactly: more than twice as fast as float32.

Activations are rounded to 8 bits too, which needs their ranges. The export measures them on real crops and
stores them in the backbone's file as metadata:

    backbone.write_bytes(add_activation_ranges(backbone.read_bytes(), crops))     # at export
    graph = quantize(merge_narrow_groups(backbone.read_bytes()))                  # in the engine

Weights that the bundle stores as int8 are used unchanged. The export compares verdicts; a backbone without
ranges is computed in float32 on every CPU.

Source:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

METADATA = "unmask.activation_ranges"

# Operators whose inputs are rounded to 8 bits. Sums and the final mean are computed in float32 from those.
_ROUNDED_INPUTS = ("Conv", "Add", "MaxPool", "ReduceMean")
# Crops per run in calibration; every activation of the network is kept for each.
_BATCH = 8

# Output of the probe if its sums are exact.
_PROBE_OUTPUT = 200

Ranges = Mapping[str, tuple[float, float]]


@cache
def int8_is_exact() -> bool:
    """Return whether int8 convolutions are exact on this CPU and worth using, by running two of them.

    x86 CPUs with VNNI add 8-bit products in 32 bits. Without VNNI, onnxruntime uses `VPMADDUBSW`, which
    saturates the sum of two products at 16 bits, so that large weights and activations give wrong features.
    The two convolutions use the largest possible products. A list of CPU features is not reliable enough:
    `/proc/cpuinfo` describes the host even under emulation, and exists on Linux only.

    Returns:
        False on other architectures as well, where no gain over float32 was measured.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(_probe(), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.full((1, 32, 3, 3), 255, np.uint8)})
    return all((output == _PROBE_OUTPUT).all() for output in outputs)


def add_activation_ranges(model: bytes, crops: NDArray[np.uint8]) -> bytes:
    """Measure the ranges of a backbone's activations and add them as metadata.

    Args:
        model: Serialised backbone, weights stored in any form.
        crops: Real faces, uint8 RGB `(N, H, W, 3)`; a few hundred from many videos are enough.

    Returns:
        The model with metadata.

    Raises:
        ValueError: There are no crops, or an activation is not finite.
    """
    if len(crops) == 0:
        raise ValueError("activation ranges cannot be measured: there are no crops")
    proto = onnx.load_model_from_string(model)
    names = sorted(_activations(proto))
    session = _observed(model, names)
    measured = []
    for start in range(0, len(crops), _BATCH):
        values = session.run(names, {proto.graph.input[0].name: crops[start : start + _BATCH]})
        measured.append([(value.min(), value.max()) for value in values])
    extremes = np.array(measured)
    if not np.isfinite(extremes).all():
        raise ValueError("the model has activations that are not finite numbers")
    # The full range is kept: clipping the largest activations moves all logits in the same direction.
    lows, highs = extremes[..., 0].min(axis=0), extremes[..., 1].max(axis=0)
    ranges = {name: [float(low), float(high)] for name, low, high in zip(names, lows, highs, strict=True)}
    kept = [item for item in proto.metadata_props if item.key != METADATA]
    del proto.metadata_props[:]
    proto.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=METADATA, value=json.dumps(ranges))])
    return bytes(proto.SerializeToString())


def activation_ranges(model: bytes) -> Ranges | None:
    """Read the ranges that `add_activation_ranges` wrote.

    Args:
        model: Serialised model.

    Returns:
        Lowest and highest value by the activation's name; None if the model has no usable ranges.
    """
    return _ranges(onnx.load_model_from_string(model))


def quantize(model: bytes) -> bytes:
    """Rewrite a backbone with activation ranges so that onnxruntime computes it in int8.

    Args:
        model: Serialised backbone with the ranges of its activations.

    Returns:
        Serialised model with the same input and output, in which activations pass through QuantizeLinear and
        DequantizeLinear; onnxruntime fuses these with convolutions and pooling into int8 operators.

    Raises:
        ValueError: The model has no usable ranges.
    """
    proto = onnx.load_model_from_string(model)
    ranges = _ranges(proto)
    if ranges is None:
        raise ValueError("the model has no activation ranges; add them with `add_activation_ranges`")
    return bytes(_Quantizer(proto, ranges).quantized().SerializeToString())


class _Quantizer:
    """Rewriter of one model."""

    def __init__(self, proto: onnx.ModelProto, ranges: Ranges) -> None:
        self._proto = proto
        self._scales = {name: _scale(low, high) for name, (low, high) in ranges.items()}
        self._arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        # Nodes that convert stored weights to float32, by their output.
        self._stored = {
            node.output[0]: node for node in proto.graph.node if _is_stored(node, set(self._arrays))
        }
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, NDArray[Any]] = {}

    def quantized(self) -> onnx.ModelProto:
        proto = self._proto
        graph = proto.graph
        for value in graph.input:
            self._round(value.name)
        for node in graph.node:
            if node.output[0] in self._stored:
                continue
            if node.op_type in _ROUNDED_INPUTS:
                taken = [f"{name}.rounded" if name in self._scales else name for name in node.input]
                if node.op_type == "Conv":
                    taken[1:] = self._weights(node)
                del node.input[:]
                node.input.extend(taken)
            self._nodes.append(node)
            for name in node.output:
                self._round(name)
        used = {name for node in self._nodes for name in node.input}
        tensors = {**self._arrays, **self._tensors}
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(
            # Not `ascontiguousarray`, which makes vectors of scalars: onnxruntime fuses sums whose scales are
            # scalars only.
            numpy_helper.from_array(np.asarray(array, order="C"), name)
            for name, array in tensors.items()
            if name in used
        )
        onnx.checker.check_model(proto)
        return proto

    def _round(self, name: str) -> None:
        """Add the 8-bit form of an activation, if its range is known."""
        if name not in self._scales:
            return
        scale, zero = self._scales[name]
        self._tensors[f"{name}.scale"] = np.array(scale, np.float32)
        self._tensors[f"{name}.zero"] = np.array(zero, np.uint8)
        how = [f"{name}.scale", f"{name}.zero"]
        self._nodes.append(helper.make_node("QuantizeLinear", [name, *how], [f"{name}.uint8"]))
        self._nodes.append(helper.make_node("DequantizeLinear", [f"{name}.uint8", *how], [f"{name}.rounded"]))

    def _weights(self, node: onnx.NodeProto) -> list[str]:
        """Add int8 weights and the int32 bias of a convolution; return the names of its inputs."""
        name = node.input[1]
        values, scale = self._int8(name)
        self._dequantize(f"{name}.per_filter", values, scale)
        if len(node.input) < 3:
            return [f"{name}.per_filter"]
        bias = node.input[2]
        step = scale * np.float32(self._scales[node.input[0]][0])
        sums = np.rint(self._arrays[bias].astype(np.float64) / step)
        limit = np.iinfo(np.int32).max
        self._dequantize(f"{bias}.per_filter", np.clip(sums, -limit, limit).astype(np.int32), step)
        return [f"{name}.per_filter", f"{bias}.per_filter"]

    def _int8(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Return weights as int8 with one scale per filter; rounded here unless they are stored as int8."""
        node = self._stored.get(name)
        if node is None:
            return _rounded(self._arrays[name])
        stored = self._arrays[node.input[0]]
        if node.op_type == "Cast":
            return _rounded(stored.astype(np.float32))
        return stored, self._arrays[node.input[1]]

    def _dequantize(self, name: str, values: NDArray[Any], scale: NDArray[np.float32]) -> None:
        self._tensors[f"{name}.values"] = values
        self._tensors[f"{name}.scale"] = scale.astype(np.float32)
        self._tensors[f"{name}.zero"] = np.zeros(len(scale), values.dtype)
        taken = [f"{name}.{part}" for part in ("values", "scale", "zero")]
        self._nodes.append(helper.make_node("DequantizeLinear", taken, [name], axis=0))


def _activations(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the inputs that are rounded, without weights."""
    constant = {tensor.name for tensor in proto.graph.initializer}
    constant |= {node.output[0] for node in proto.graph.node if _is_stored(node, constant)}
    taken = set()
    for node in proto.graph.node:
        if node.op_type in _ROUNDED_INPUTS:
            taken |= set(node.input if node.op_type == "Add" else node.input[:1])
    return taken - constant


def _is_stored(node: onnx.NodeProto, constant: set[str]) -> bool:
    if node.op_type == "Cast":
        return node.input[0] in constant
    axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
    return (
        node.op_type == "DequantizeLinear"
        and len(node.input) == 2
        and axis == 0
        and set(node.input) <= constant
    )


def _observed(model: bytes, names: list[str]) -> Any:
    """Return a session with activations as its outputs."""
    proto = onnx.load_model_from_string(model)
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _ranges(proto: onnx.ModelProto) -> Ranges | None:
    text = next((item.value for item in proto.metadata_props if item.key == METADATA), None)
    if text is None:
        return None
    try:
        ranges = {name: (float(low), float(high)) for name, (low, high) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return None
    usable = all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in ranges.values())
    return ranges if usable and set(ranges) == _activations(proto) else None


def _scale(low: float, high: float) -> tuple[float, int]:
    """Return the step and zero point with which 8 bits cover a range and represent zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max((high - low) / 255, 1e-9)
    return step, round(-low / step)


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scale = np.maximum(largest / 127, 1e-12).astype(np.float32)
    shape = (-1, *[1] * (weight.ndim - 1))
    return np.rint(weight / scale.reshape(shape)).astype(np.int8), scale


def _probe() -> bytes:
    """Build a model of a pointwise and a grouped convolution whose products are all 255 * 127."""
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, NDArray[Any]] = {}
    for name, size, groups in (("pointwise", 1, 1), ("grouped", 3, 2)):
        products = 32 // groups * size * size
        given: dict[str, NDArray[Any]] = {
            "x_scale": np.array(1, np.float32),
            "x_zero": np.array(0, np.uint8),
            "weight": np.full((32, 32 // groups, size, size), 127, np.int8),
            "weight_scale": np.ones(32, np.float32),
            "weight_zero": np.zeros(32, np.int8),
            "y_scale": np.array(products * 255 * 127 / _PROBE_OUTPUT, np.float32),
            "y_zero": np.array(0, np.uint8),
        }
        tensors |= {f"{name}.{key}": array for key, array in given.items()}
        inputs = ["x", *(f"{name}.{key}" for key in given)]
        nodes.append(helper.make_node("QLinearConv", inputs, [name], group=groups))
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 32, 3, 3])],
        [helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, None) for node in nodes],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())
