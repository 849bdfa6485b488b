"""Rounds weights to what a bundle stores: int8 with one scale per output channel, float16, or a mix of both.

Rounding each weight to the nearest step is not the best for the layer's output: inputs are correlated, more
so behind a ReLU, and the errors of one channel add up to a shift. Given crops, the weights are therefore
rounded one input at a time, and each error is made up for by the weights not yet rounded. It costs nothing
at run time.

Source:
    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
    ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from export.errors import WeightsUnusable
from runtime.model.manifest import Weights

# Smaller tensors stay float32, the first convolution among them: together a few hundred kilobytes.
MIN_STORED = 16_384
# Of int8, the smallest layers up to this share of all parameters are float16 instead: the first ones, whose
# errors all others see, and the grouped ones. On a trained detector this took nine tenths of the error away.
FLOAT16_SHARE = 0.1
# Rounding looks at this many crops of 112 px, and at as many pixels of others.
CALIBRATION_PIXELS = 256 * 112 * 112
# Relative to the mean square input: what keeps the solve stable where inputs are few or never active.
DAMPING = 0.01
INT8_MAX = 127
_BLOCK = 128


@dataclass(frozen=True)
class StoredWeight:
    """Holds a weight as the bundle stores it.

    Args:
        values: int8 or float16.
        scale: float32, one per index of the axis; None for float16.
        axis: The axis of the output channels.
    """

    values: NDArray[np.int8] | NDArray[np.float16]
    scale: NDArray[np.float32] | None = None
    axis: int = 0

    def restored(self) -> NDArray[np.float32]:
        """Compute the float32 weight that the engines will use, bit for bit."""
        wide = self.values.astype(np.float32)
        if self.scale is None:
            return wide
        shape = [1] * wide.ndim
        shape[self.axis] = -1
        return wide * self.scale.reshape(shape)


def round_weights(
    backbone: nn.Module, head: nn.Module, kind: Weights, clips: Tensor | None
) -> dict[str, StoredWeight]:
    """Round the large weights of both networks, in place.

    Args:
        backbone: crops -> features, in evaluation mode, without batch normalisation.
        head: features -> logit, in evaluation mode.
        kind: `int8` (the smallest layers float16), `float16`, or `float32` to leave them as they are.
        clips: Face crops, uint8 RGB `(K, T, H, W, 3)`, that int8 rounding fits outputs on; None rounds each
            weight to the nearest step.

    Returns:
        What to store, by `backbone.` or `head.` and the parameter's name. The networks compute with these.

    Raises:
        WeightsUnusable: A weight is not finite or beyond float16.
    """
    stored: dict[str, StoredWeight] = {}
    modules = {
        f"{part}.{name}": module
        for part, network in (("backbone", backbone), ("head", head))
        for name, module in network.named_modules()
    }
    if kind == "int8":
        for name in _smallest(modules):
            _round_module(name, modules[name], "float16", stored)
    if kind == "int8" and clips is not None:
        _round_in_forward_order(modules, backbone, head, clips, stored)
    if kind != "float32":
        for name, module in modules.items():
            _round_module(name, module, kind, stored)
    return stored


def _smallest(modules: dict[str, nn.Module]) -> list[str]:
    """Name the layers that are float16 among int8 ones; an LSTM is not, as its directions go together."""
    sizes = {
        name: module.weight.numel()
        for name, module in modules.items()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel() >= MIN_STORED
    }
    everything = sum(p.numel() for module in modules.values() for p in module.parameters(recurse=False))
    names = sorted(sizes, key=lambda name: sizes[name])
    running = np.cumsum([sizes[name] for name in names])
    return names[: int((running <= FLOAT16_SHARE * everything).sum())]


def _round_in_forward_order(
    modules: dict[str, nn.Module],
    backbone: nn.Module,
    head: nn.Module,
    clips: Tensor,
    stored: dict[str, StoredWeight],
) -> None:
    """Round each layer just before it runs, so that it sees what the rounded layers before it give."""

    def before(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            _round_module(name, module, "int8", stored, inputs[0])

        return hook

    handles = [
        module.register_forward_pre_hook(before(name))
        for name, module in modules.items()
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.LSTM))
    ]
    try:
        with torch.no_grad():
            features = backbone(clips.flatten(0, 1))
            head(features.reshape(*clips.shape[:2], -1))
    finally:
        for handle in handles:
            handle.remove()


def _round_module(
    name: str, module: nn.Module, kind: Weights, stored: dict[str, StoredWeight], inputs: Tensor | None = None
) -> None:
    if isinstance(module, nn.LSTM):
        for layer in range(module.num_layers):
            _round_lstm_layer(name, module, layer, kind, stored, inputs)
    elif isinstance(module, (nn.Conv2d, nn.Linear)):
        key = f"{name}.weight"
        if key in stored or module.weight.numel() < MIN_STORED:
            return
        gram, groups = None, 1
        if isinstance(module, nn.Conv2d):
            gram, groups = None if inputs is None else conv_gram(module, inputs), module.groups
        elif inputs is not None:
            gram = _gram(inputs.flatten(0, -2))
        stored[key] = rounded(module.weight, kind, gram, groups=groups)
        module.weight.data.copy_(torch.from_numpy(stored[key].restored()))


def _round_lstm_layer(
    name: str,
    lstm: nn.LSTM,
    layer: int,
    kind: Weights,
    stored: dict[str, StoredWeight],
    inputs: Tensor | None,
) -> None:
    for parameter in ("weight_ih", "weight_hh"):
        ways = [f"{parameter}_l{layer}{end}" for end in (("", "_reverse") if lstm.bidirectional else ("",))]
        weights = [getattr(lstm, way) for way in ways]
        if f"{name}.{ways[0]}" in stored or weights[0].numel() < MIN_STORED:
            continue
        gram = None
        # What deeper layers and the way back take in is not at hand; these round to nearest.
        if inputs is not None and parameter == "weight_ih" and layer == 0:
            gram = _gram(inputs.flatten(0, 1))
        elif inputs is not None and lstm.num_layers == len(ways) == 1:
            gram = _gram(_states(lstm, inputs))
        # Both directions are one ONNX tensor, which has one scale for each row.
        scale = channel_scale(*weights)
        for way, weight in zip(ways, weights, strict=True):
            stored[f"{name}.{way}"] = rounded(weight, kind, gram, scale=scale)
            weight.data.copy_(torch.from_numpy(stored[f"{name}.{way}"].restored()))


def channel_scale(*weights: Tensor) -> Tensor:
    """Find the int8 step of each output channel, so that its largest weight is 127 steps.

    Args:
        weights: float32, of one shape, output channels first; they share the scale.

    Returns:
        float32, one above 0 per channel.
    """
    largest = torch.stack([weight.abs().flatten(1).amax(1) for weight in weights]).amax(0)
    # A channel of zeros needs some scale; one is as good as any.
    return torch.where(largest > 0, largest / INT8_MAX, torch.ones_like(largest))


def rounded(
    weight: Tensor,
    kind: Weights,
    gram: Tensor | None = None,
    *,
    groups: int = 1,
    scale: Tensor | None = None,
) -> StoredWeight:
    """Round one weight.

    Args:
        weight: float32, output channels first.
        kind: `int8` or `float16`.
        gram: Of the inputs, `(groups, I, I)`, I being the inputs of one output; None rounds to nearest.
        groups: Of a grouped convolution.
        scale: Of int8, one per channel; None for the weight's own `channel_scale`.

    Returns:
        What to store.

    Raises:
        WeightsUnusable: The weight is not finite or beyond float16.
    """
    if not torch.isfinite(weight).all():
        raise WeightsUnusable("a weight is not a finite number", "go back to an earlier checkpoint")
    if kind == "float16":
        half = weight.half()
        if not torch.isfinite(half).all():
            raise WeightsUnusable(
                "a weight is beyond the range of float16", "use --weights int8 or --weights float32"
            )
        return StoredWeight(half.numpy(force=True))
    scale = channel_scale(weight) if scale is None else scale
    rows = (weight.flatten(1) / scale[:, None]).double()
    if gram is None:
        steps = rows.round().clamp(-INT8_MAX, INT8_MAX)
    else:
        steps = _fitted(rows.reshape(groups, -1, rows.shape[1]), gram).flatten(0, 1)
    values = steps.to(torch.int8).reshape(weight.shape)
    return StoredWeight(values.numpy(force=True), scale.numpy(force=True))


def _fitted(rows: Tensor, gram: Tensor) -> Tensor:
    """Round rows `(G, O, I)` to whole steps, errors weighed by the Gram matrix `(G, I, I)` of the inputs."""
    rows, gram = rows.clone(), gram.double().clone()
    inputs = gram.shape[-1]
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += DAMPING * diagonal.mean(-1, keepdim=True) + torch.finfo(torch.float32).tiny
    # The inputs that matter most come first, while there are many weights left to make up for the error.
    order = diagonal.argsort(dim=-1, descending=True)
    back = order.argsort(dim=-1)
    rows = rows.take_along_dim(order[:, None, :], -1)
    gram = gram.take_along_dim(order[:, None, :], -1).take_along_dim(order[:, :, None], -2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    steps = torch.empty_like(rows)
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = torch.empty_like(rows[..., start:end])
        for i in range(start, end):
            column = rows[..., i]
            steps[..., i] = column.round().clamp(-INT8_MAX, INT8_MAX)
            error = (column - steps[..., i]) / factor[:, i, i, None]
            rows[..., i:end] -= error[..., None] * factor[:, i, None, i:end]
            errors[..., i - start] = error
        rows[..., end:] -= errors @ factor[:, start:end, end:]
    return steps.take_along_dim(back[:, None, :], -1)


def conv_gram(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """Sum the outer matrix_products of what a convolution's windows see.

    Args:
        conv: The convolution.
        maps: Its input, float32 `(N, C, H, W)`.

    Returns:
        float64 `(groups, I, I)`, I = C / groups x kernel area, in the order of the flattened weight.
    """
    inputs = conv.weight[0].numel()
    gram = torch.zeros(conv.groups, inputs, inputs, dtype=torch.float64)
    padding: Any = conv.padding
    kernel: Any = conv.kernel_size
    # In pieces, as the windows of one map overlap into nine times its memory.
    for piece in torch.split(maps, 16):
        windows = F.unfold(piece, kernel, conv.dilation, padding, conv.stride)
        seen = windows.reshape(len(piece), conv.groups, inputs, -1).movedim(0, 2).flatten(2)
        gram += seen @ seen.transpose(1, 2)
    return gram


def _gram(rows: Tensor) -> Tensor:
    return (rows.T @ rows).double()[None]


def _states(lstm: nn.LSTM, inputs: Tensor) -> Tensor:
    """Give the hidden states that the recurrent weight sees: all but the last, `(N * (T - 1), hidden)`."""
    # `forward` rather than a call, which would run the hook that asks for this.
    states, _ = lstm.forward(inputs)
    return states[:, :-1].flatten(0, 1)
