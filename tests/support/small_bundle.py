"""Small model bundle of random weights, in the real format and with real operators, made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.model.bundle import write_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import BACKBONE_FILE, HEAD_FILE, Manifest

SMALL = Manifest(
    name="small",
    input_size=32,
    crop_margin=1.3,
    sample_hz=8.0,
    window=8,
    min_frames=4,
    feature_dim=16,
    calibration=Calibration(scale=2.0, offset=0.25, threshold_fpr1=0.9),
    weights="int8",
    training={"data": "none"},
    metrics={"auc": 0.5},
)


def write_small_bundle(directory: Path) -> Path:
    """Write the bundle into a new directory and return the directory."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    onnx.save(_backbone(rng, SMALL.input_size, SMALL.feature_dim), directory / BACKBONE_FILE)
    onnx.save(_head(rng, SMALL.feature_dim, hidden=8), directory / HEAD_FILE)
    write_manifest(directory, SMALL)
    return directory


def _backbone(rng: np.random.Generator, size: int, dim: int) -> onnx.ModelProto:
    kernel = rng.integers(-127, 128, (dim, 3, 7, 7), dtype=np.int8)
    return _model(
        [
            helper.make_node("Cast", ["crops"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Sub", ["planes", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["input"]),
            helper.make_node("DequantizeLinear", ["kernel_int8", "kernel_scale"], ["kernel"], axis=0),
            helper.make_node("Conv", ["input", "kernel"], ["map"], strides=[4, 4]),
            helper.make_node("Relu", ["map"], ["active"]),
            helper.make_node("ReduceMean", ["active", "axes"], ["features"], keepdims=0),
        ],
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", dim])],
        {
            "mean": np.float32(127.5),
            "scale": np.float32(64.0),
            "kernel_int8": kernel,
            "kernel_scale": rng.uniform(5e-4, 1e-3, dim).astype(np.float32),
            "axes": np.array([2, 3]),
        },
    )


def _head(rng: np.random.Generator, dim: int, *, hidden: int) -> onnx.ModelProto:
    return _model(
        [
            helper.make_node("Transpose", ["features"], ["steps"], perm=[1, 0, 2]),
            helper.make_node("LSTM", ["steps", "W", "R"], ["states"], hidden_size=hidden),
            helper.make_node("ReduceMean", ["states", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "out"], ["logit"]),
        ],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", "T", dim])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        {
            "W": rng.normal(size=(1, 4 * hidden, dim)).astype(np.float32),
            "R": rng.normal(size=(1, 4 * hidden, hidden)).astype(np.float32),
            "axes": np.array([0, 1]),
            "out": rng.normal(size=hidden).astype(np.float32) * 4,
        },
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, NDArray[np.generic] | np.float32],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
