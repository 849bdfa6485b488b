"""Rounding of both networks' weights to the stored types: int8 per output channel, float16, or both.

    stored = round_weights(backbone, head, "int8", clips)     # the networks have the rounded weights now

Given face crops, int8 rounding minimises the error of each layer's output on them (`gptq.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from export.errors import WeightsUnusable
from export.onnx_graph.gptq import conv_gram, gptq_steps, linear_gram, recurrent_gram
from export.onnx_graph.stored_weight import INT8_MAX, MIN_STORED, StoredWeight, channel_scale
from runtime.model.manifest import Weights

# With int8, the smallest layers are stored as float16, up to this share of all parameters. These are the
# first layers, whose errors pass through all others, and the grouped ones. On a trained detector this removed
# nine tenths of the error.
FLOAT16_SHARE = 0.1
# Pixels that GPTQ fits on: 256 crops of 112 px, or as many pixels of another size.
CALIBRATION_PIXELS = 256 * 112 * 112


def round_weights(
    backbone: nn.Module, head: nn.Module, kind: Weights, clips: Tensor | None
) -> dict[str, StoredWeight]:
    """Round the large weights of both networks, in place.

    Args:
        backbone: crops -> features, in evaluation mode, without batch normalisation.
        head: features -> logit, in evaluation mode.
        kind: `int8` (the smallest layers float16), `float16`, or `float32` to leave the weights as they are.
        clips: Face crops for GPTQ, uint8 RGB `(K, T, H, W, 3)`; None rounds each weight to the nearest step.

    Returns:
        The stored weights, by parameter name with the prefix `backbone.` or `head.`.

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
        for name in _float16_layers(modules):
            _round_module(name, modules[name], "float16", stored)
    if kind == "int8" and clips is not None:
        _round_in_forward_order(modules, backbone, head, clips, stored)
    if kind != "float32":
        for name, module in modules.items():
            _round_module(name, module, kind, stored)
    return stored


def round_weight(
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
        gram: Gram matrix of the inputs, `(groups, I, I)`, I inputs per output; None rounds to nearest.
        groups: Number of groups of a grouped convolution.
        scale: int8 step of each channel; None for the weight's own `channel_scale`.

    Returns:
        The stored weight.

    Raises:
        WeightsUnusable: The weight is not finite or beyond float16.
    """
    if not torch.isfinite(weight).all():
        raise WeightsUnusable("a weight is not a finite number", "use an earlier checkpoint")
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
        steps = gptq_steps(rows.reshape(groups, -1, rows.shape[1]), gram).flatten(0, 1)
    values = steps.to(torch.int8).reshape(weight.shape)
    return StoredWeight(values.numpy(force=True), scale.numpy(force=True))


def _float16_layers(modules: dict[str, nn.Module]) -> list[str]:
    """Return the layers to store as float16 beside int8 ones; no LSTM, as its directions share a scale."""
    sizes = {
        name: module.weight.numel()
        for name, module in modules.items()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.numel() >= MIN_STORED
    }
    total = sum(p.numel() for module in modules.values() for p in module.parameters(recurse=False))
    names = sorted(sizes, key=lambda name: sizes[name])
    running = np.cumsum([sizes[name] for name in names])
    return names[: int((running <= FLOAT16_SHARE * total).sum())]


def _round_in_forward_order(
    modules: dict[str, nn.Module],
    backbone: nn.Module,
    head: nn.Module,
    clips: Tensor,
    stored: dict[str, StoredWeight],
) -> None:
    """Round each layer just before it runs, so that its inputs come from layers that are already rounded."""

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
            gram = linear_gram(inputs.flatten(0, -2))
        stored[key] = round_weight(module.weight, kind, gram, groups=groups)
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
        ends = ("", "_reverse") if lstm.bidirectional else ("",)
        names = [f"{parameter}_l{layer}{end}" for end in ends]
        weights = [getattr(lstm, own) for own in names]
        if f"{name}.{names[0]}" in stored or weights[0].numel() < MIN_STORED:
            continue
        gram = None
        # The inputs of deeper layers and of the reverse direction are unknown here: round these to nearest.
        if inputs is not None and parameter == "weight_ih" and layer == 0:
            gram = linear_gram(inputs.flatten(0, 1))
        elif inputs is not None and lstm.num_layers == len(names) == 1:
            gram = recurrent_gram(lstm, inputs)
        # Both directions are one ONNX tensor, which has one scale for each row.
        scale = channel_scale(*weights)
        for own, weight in zip(names, weights, strict=True):
            stored[f"{name}.{own}"] = round_weight(weight, kind, gram, scale=scale)
            weight.data.copy_(torch.from_numpy(stored[f"{name}.{own}"].restored()))
