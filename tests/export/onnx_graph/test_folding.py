"""Folding for inference: the same function without batch normalisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from export.onnx_graph.folding import fold_for_inference
from tests.export.conftest import SmallModel, make_clips


def test_folding_keeps_the_function(model: SmallModel) -> None:
    """No batch normalisation is left and the features are the same up to float32 rounding."""
    crops = torch.from_numpy(make_clips(2, 5)).flatten(0, 1)
    network = fold_for_inference(model.backbone, crops[:1])
    kinds = {type(module) for module in network.modules()}
    assert nn.BatchNorm2d not in kinds
    assert nn.AdaptiveAvgPool2d not in kinds
    torch.testing.assert_close(network(crops), model.backbone(crops), rtol=1e-4, atol=1e-5)


def test_folding_does_not_change_the_original(model: SmallModel) -> None:
    """The weights of the trained network do not change, and no hook is left on it."""
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    fold_for_inference(model.backbone, torch.from_numpy(make_clips(1, 5)[0]))
    after = model.backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not model.backbone.stem._forward_hooks


def test_a_normalisation_that_cannot_be_folded_is_refused() -> None:
    """A normalisation that does not follow a convolution is an error."""
    lone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    with pytest.raises(ValueError, match="2 does not normalise the output of a convolution"):
        fold_for_inference(lone, torch.zeros(1, 3, 2, 2))


def test_one_convolution_for_two_normalisations_is_refused() -> None:
    """A convolution that feeds two normalisations is an error."""

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            outputs: torch.Tensor = self.a(y) + self.b(y)
            return outputs

    with pytest.raises(ValueError, match="feeds several"):
        fold_for_inference(Fork().eval(), torch.zeros(1, 3, 2, 2))
