"""Initial weights of the backbone: from a torchvision state dict, a checkpoint, or a bundle.

The batch normalisations of a bundle are folded into its convolutions. For further training they are restored:
each one gets the statistics of the given crops and an affine part that cancels them, so that outputs do not
change.
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

from runtime.errors import PathError
from runtime.model.bundle import load_bundle
from runtime.model.manifest import MANIFEST_FILE
from train.errors import TrainError
from train.models.checkpoint import is_checkpoint, load_checkpoint
from train.models.detector import Backbone


class InitialWeightsError(PathError, TrainError):
    """Weights that cannot be loaded into the backbone."""

    advice = (
        "give a checkpoint, a bundle, or a state dict of torchvision's resnext50_32x4d (.safetensors, .pth)"
    )


def load_initial(backbone: Backbone, path: Path, crops: Tensor) -> None:
    """Load the weights of a backbone.

    Args:
        backbone: Backbone to change in place.
        path: Directory of a checkpoint or a bundle, or a state dict as `.safetensors`, `.pth` or `.pt`; a
            classifier in it is ignored.
        crops: RGB uint8 `(N, H, W, 3)` of the training data, for the statistics of a bundle.

    Raises:
        InitialWeightsError: There are no weights, or they do not fit.
        CheckpointError: The checkpoint cannot be read.
        BundleError: The bundle cannot be read.
    """
    if is_checkpoint(path):
        backbone.load_state_dict(load_checkpoint(path).model.backbone.state_dict())
    elif (path / MANIFEST_FILE).is_file():
        _load_folded(backbone, path, crops)
    elif path.is_file():
        _load_state(backbone, path)
    else:
        raise InitialWeightsError(
            path, "contains no weights" if path.exists() else "no such file or directory"
        )


WEIGHTS_ERRORS = (
    OSError,
    RuntimeError,
    SafetensorError,
    ValueError,
    KeyError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)
"""Exceptions of reading a file that is no state dict, and of loading weights that do not fit."""


SORTED_SUFFIX = ".safetensors"
"""Suffix of the format that stores weights sorted by name, so that the order of the layers is lost."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: File of `safetensors` or `torch.save`.

    Returns:
        Name -> weights, on the CPU.

    Raises:
        Exception: One of `WEIGHTS_ERRORS`, if the file cannot be read.
    """
    if path.suffix == SORTED_SUFFIX:
        return load_file(path)
    return dict(torch.load(path, map_location="cpu", weights_only=True).items())


def _load_state(backbone: Backbone, path: Path) -> None:
    try:
        state = read_state(path)
        kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
        backbone.trunk.load_state_dict(kept)
    except WEIGHTS_ERRORS as error:
        raise InitialWeightsError(path, f"does not fit this backbone ({type(error).__name__})") from error


def _load_folded(backbone: Backbone, path: Path, crops: Tensor) -> None:
    bundle = load_bundle(path)
    stored = _initialisers(bundle.backbone)
    convolutions = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    biases: dict[int, Tensor] = {}
    for name, convolution in convolutions.items():
        weight = stored.get(f"{name}.weight")
        if weight is None or weight.shape != convolution.weight.shape:
            raise InitialWeightsError(path, f"its {name} does not fit this backbone")
        convolution.weight.data.copy_(weight)
        # A bias of zeros is not exported.
        biases[id(convolution)] = stored.get(f"{name}.bias", torch.zeros(len(weight)))
    last_bias: list[Tensor] = []

    def keep_bias(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        last_bias[:] = [biases[id(module)]]

    def restore(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        assert module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.weight.data.copy_((variance + module.eps).sqrt())
        module.bias.data.copy_(last_bias[0] + mean)

    handles: list[Any] = [m.register_forward_hook(keep_bias) for m in convolutions.values()]
    handles += [
        m.register_forward_pre_hook(restore) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    # Every normalisation directly follows its convolution.
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(crops)
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()


def _initialisers(graph: Path) -> dict[str, Tensor]:
    """Return the weights of a graph as float32, by the names of the parameters of the backbone."""
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
