"""Starts the trunk from weights that are there: of torchvision's form, of a checkpoint, or of a bundle.

A bundle's batch normalisations are folded into its convolutions. They are put back so that the function stays
what it was: each normalisation takes the statistics that some crops show, and undoes them.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from runtime.model.bundle import load_bundle
from runtime.model.manifest import MANIFEST_FILE
from train.models.checkpoint import is_checkpoint, load_checkpoint
from train.models.detector import Backbone


class InitialWeightsError(ValueError):
    """Says that weights cannot be started from.

    Args:
        path: The file or directory.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason}; give a checkpoint, a bundle, or a state dict of torchvision's "
            "resnext50_32x4d (.safetensors, .pth)"
        )


def load_initial(backbone: Backbone, path: Path, crops: Tensor) -> None:
    """Load a trunk's weights.

    Args:
        backbone: Is changed in place.
        path: A checkpoint's or a bundle's directory, or a state dict as `.safetensors`, `.pth` or `.pt` whose
            classifier, if any, is left aside.
        crops: uint8 RGB (N, H, W, 3) of the kind to train on, for a bundle's statistics.

    Raises:
        InitialWeightsError: There are no weights, or they are not of this trunk.
        CheckpointError: The checkpoint cannot be read.
        BundleError: The bundle cannot be read.
    """
    if is_checkpoint(path):
        backbone.load_state_dict(load_checkpoint(path).model.backbone.state_dict())
    elif (path / MANIFEST_FILE).is_file():
        _load_folded(backbone, path, crops)
    elif path.is_file():
        _load_trunk(backbone, path)
    else:
        raise InitialWeightsError(path, "holds no weights" if path.exists() else "no such file or directory")


NO_WEIGHTS = (
    OSError,
    RuntimeError,
    SafetensorError,
    ValueError,
    KeyError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)
"""What reading a file of weights, and loading them into a network that they are not of, may raise."""


SORTED = ".safetensors"
"""The format that keeps weights by name only, not in the order they were given in."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: `.safetensors`, or what torch saved.

    Returns:
        The weights by name, on the CPU.

    Raises:
        Exception: One of `NO_WEIGHTS`; the file cannot be read.
    """
    if path.suffix == SORTED:
        return load_file(path)
    return dict(torch.load(path, map_location="cpu", weights_only=True).items())


def _load_trunk(backbone: Backbone, path: Path) -> None:
    try:
        state = read_state(path)
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        backbone.trunk.load_state_dict(kept)
    except NO_WEIGHTS as error:
        raise InitialWeightsError(path, f"is not of this trunk ({type(error).__name__})") from error


def _load_folded(backbone: Backbone, path: Path, crops: Tensor) -> None:
    bundle = load_bundle(path)
    stored = _initialisers(bundle.backbone)
    convolutions = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    biases: dict[int, Tensor] = {}
    for name, convolution in convolutions.items():
        weight = stored.get(f"{name}.weight")
        if weight is None or weight.shape != convolution.weight.shape:
            raise InitialWeightsError(path, f"its {name} is not of this trunk")
        convolution.weight.data.copy_(weight)
        # A bias that is nothing is not exported.
        biases[id(convolution)] = stored.get(f"{name}.bias", torch.zeros(len(weight)))
    last: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        last[:] = [biases[id(module)]]

    def undo(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.weight.data.copy_((variance + module.eps).sqrt())
        module.bias.data.copy_(last[0] + mean)

    handles: list[Any] = [m.register_forward_hook(remember) for m in convolutions.values()]
    handles += [
        m.register_forward_pre_hook(undo) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    # Every normalisation follows its convolution at once, so the last convolution is the one it belongs to.
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(crops)
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()


def _initialisers(graph: Path) -> dict[str, Tensor]:
    """Read a graph's weights, unpacked to float32, by the names of the network's parameters."""
    raw = {i.name: numpy_helper.to_array(i) for i in onnx.load(graph).graph.initializer}
    unpacked: dict[str, Tensor] = {}
    for name, values in raw.items():
        if name.endswith(".int8"):
            key = name.removesuffix(".int8")
            scale = raw[f"{key}.scale"].reshape(-1, *[1] * (values.ndim - 1))
            unpacked[key] = torch.from_numpy(values.astype("float32") * scale)
        elif not name.endswith(".scale"):
            unpacked[name.removesuffix(".float16")] = torch.from_numpy(values.astype("float32"))
    return unpacked
