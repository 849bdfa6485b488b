"""Torch detector rebuilt from a bundle, with its stored weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from export.errors import GraphUnsupported
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.lstm import parameter_names, torch_gates
from export.parity.torch_detector import TorchDetector
from runtime.engines.tensorrt.onnx_rewrite import rewrite_graph
from runtime.model.bundle import Bundle
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM


def restored_detector(bundle: Bundle) -> TorchDetector:
    """Return the detector of `train.models.detector` with the weights of a bundle.

    Args:
        bundle: The model bundle.

    Returns:
        The detector in evaluation mode, without batch normalisation, which is folded in the bundle.

    Raises:
        GraphUnsupported: The graphs are not of this detector.
    """
    backbone, head = (_weights(path) for path in (bundle.backbone, bundle.head))
    recurrent = [name for name in head if name.startswith("lstm.weight_hh_l")]
    if not recurrent:
        raise GraphUnsupported("head", "it has no LSTM with the name that training uses")
    config = ModelConfig(
        input_size=bundle.input_size,
        window=bundle.window,
        min_frames=bundle.min_frames,
        hidden=head[recurrent[0]].shape[-1],
        layers=len(recurrent),
    )
    model = ResNeXtLSTM(config).eval()
    example = torch.zeros(2, config.input_size, config.input_size, 3, dtype=torch.uint8)
    backbone_network = fold_for_inference(model.backbone, example)

    for constant in ("mean", "deviation"):
        expected = getattr(model.backbone, constant).numpy().ravel()
        if not any(array.size == 3 and np.allclose(array.ravel(), expected) for array in backbone.values()):
            raise GraphUnsupported("backbone", f"its colour {constant} differs from that of training")
    _load(
        backbone_network,
        {name: torch.from_numpy(np.array(array)) for name, array in backbone.items()},
        "backbone",
    )
    _load(model.head, _head_state(model.head.lstm, head), "head")
    return TorchDetector(backbone_network.requires_grad_(False), model.head.requires_grad_(False))


def _weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the float32 constants of a graph, with stored weights restored."""
    graph = onnx.load_model_from_string(rewrite_graph(path.read_bytes(), "fp32")).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def _head_state(lstm: nn.LSTM, arrays: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Return the parameters of the head in torch's order of gates, by torch's names."""
    state = {name: array for name, array in arrays.items() if not name.startswith("lstm.")}
    for layer in range(lstm.num_layers):
        try:
            parts = {kind: arrays[f"lstm.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias")}
        except KeyError as error:
            raise GraphUnsupported("head", f"its LSTM lacks {error}") from error
        biases = np.split(parts.pop("bias"), 2, axis=1)
        for kind, array in (*parts.items(), ("bias_ih", biases[0]), ("bias_hh", biases[1])):
            for name, parameter in zip(parameter_names(lstm, kind, layer), torch_gates(array), strict=True):
                state[f"lstm.{name}"] = parameter
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def _load(network: nn.Module, state: dict[str, Tensor], part: str) -> None:
    expected = network.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith("bias")]
    if missing:
        raise GraphUnsupported(part, f"it lacks {missing[0]}")
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if wrong:
        raise GraphUnsupported(part, f"{wrong[0]} has another shape than in training")
    # The exporter drops biases that are zero.
    network.load_state_dict(
        {name: state.get(name, torch.zeros_like(value)) for name, value in expected.items()}
    )
