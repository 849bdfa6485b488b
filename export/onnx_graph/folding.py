"""Folding of batch normalisation into convolutions, and a simpler global average pooling."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.errors import GraphUnsupported


class SpatialMean(nn.Module):
    """Mean over height and width: `(N, C, H, W)` -> `(N, C)`."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


def fold_for_inference(model: nn.Module, example: Tensor) -> nn.Module:
    """Copy a network for inference, each batch normalisation folded into its convolution.

    The pairs of convolution and normalisation are found by running the network once, so any network works
    whose convolutions are each used once.

    Args:
        model: The network; it is not changed.
        example: Input that runs through every layer.

    Returns:
        The copy, in evaluation mode, computing the same function up to float32 rounding.

    Raises:
        GraphUnsupported: A normalisation does not follow a convolution, or one convolution feeds several.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    for norm_name, conv_name in _pairs(network, example).items():
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        network.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        network.set_submodule(norm_name, nn.Identity())
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            # The exporter would write a Gather over indices computed from the batch size.
            network.set_submodule(name, SpatialMean())
    return network


def _pairs(network: nn.Module, example: Tensor) -> dict[str, str]:
    """Map the name of each batch normalisation to that of the convolution whose output it receives."""
    produced_by: dict[int, str] = {}
    pairs: dict[str, str] = {}
    # Kept until the end, so that no two tensors share an id.
    alive: list[Tensor] = []

    def record_output(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            alive.append(output)
            produced_by[id(output)] = name

        return hook

    def pair_input(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) not in produced_by:
                raise GraphUnsupported("backbone", f"{name} does not normalise the output of a convolution")
            pairs[name] = produced_by[id(inputs[0])]

        return hook

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(record_output(name)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(pair_input(name)))
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if norms - pairs.keys():
        raise GraphUnsupported("backbone", f"{', '.join(sorted(norms - pairs.keys()))} did not run")
    if len(set(pairs.values())) != len(pairs):
        raise GraphUnsupported("backbone", "a convolution feeds several normalisations")
    return pairs
