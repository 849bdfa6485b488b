"""Rounded weights: stored types, exact restoring, and the fit of GPTQ to the inputs of the layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.gptq import conv_gram
from export.onnx_graph.rounding import round_weight, round_weights
from runtime.model.manifest import Weights
from tests.export.conftest import SmallModel, make_clips, small_model


def test_int8_is_within_half_a_step_of_its_channel() -> None:
    """Each output channel has its own scale, set by its largest weight."""
    weight = torch.randn(8, 5, 3, 3) * torch.logspace(-4, 2, 8).view(-1, 1, 1, 1)
    stored = round_weight(weight, "int8")
    assert stored.values.dtype == np.int8
    assert stored.scale is not None
    assert np.abs(stored.values).reshape(8, -1).max(1).tolist() == [127] * 8
    error = np.abs(stored.restored() - weight.numpy()).reshape(8, -1).max(1)
    assert (error <= 0.5001 * stored.scale).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    """A channel of zeros gets a scale other than zero."""
    weight = torch.zeros(4, 6)
    weight[1] = 1.0
    for gram in (None, torch.eye(6, dtype=torch.float64)[None]):
        np.testing.assert_array_equal(round_weight(weight, "int8", gram).restored(), weight.numpy())


def test_gptq_reduces_the_output_error() -> None:
    """On correlated inputs the layer's output error is a fraction of that of rounding to nearest."""
    torch.manual_seed(0)
    inputs = torch.randn(4000, 20) @ torch.randn(20, 96) + 3.0
    weight = torch.randn(32, 96)
    errors = []
    for gram in (None, (inputs.T @ inputs).double()[None]):
        restored = torch.from_numpy(round_weight(weight, "int8", gram).restored())
        errors.append((inputs @ (restored - weight).T).norm().item())
    assert errors[1] < 0.25 * errors[0]


def test_gptq_accepts_inputs_that_are_always_zero() -> None:
    """Channels behind a dead ReLU make the Gram matrix singular; their weights still round to a near step."""
    inputs = torch.randn(50, 12).relu()
    inputs[:, 3] = 0
    weight = torch.randn(4, 12)
    restored = round_weight(weight, "int8", (inputs.T @ inputs).double()[None]).restored()
    assert np.isfinite(restored).all()
    assert np.abs(restored - weight.numpy())[:, 3].max() < 0.1


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 1, 1, groups=4), nn.Conv2d(4, 4, 1, 2)]
)
def test_conv_gram_measures_the_output(conv: nn.Conv2d) -> None:
    """The Gram matrix gives the energy of the convolution's output in each group."""
    maps = torch.randn(20, conv.in_channels, 9, 7)
    gram = conv_gram(conv, maps)
    rows = conv.weight.detach().double().reshape(conv.groups, conv.out_channels // conv.groups, -1)
    energy = torch.einsum("goi,gij,goj->go", rows, gram, rows).flatten()
    bias = conv.bias.detach() if conv.bias is not None else torch.zeros(conv.out_channels)
    outputs = conv(maps).detach() - bias.view(1, -1, 1, 1)
    torch.testing.assert_close(energy, outputs.double().pow(2).sum((0, 2, 3)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["int8", "float16"])
@pytest.mark.parametrize("fit", [False, True])
def test_networks_hold_the_restored_weights(model: SmallModel, kind: Weights, fit: bool) -> None:
    """Every large weight is stored once, and the network holds its restored value bit for bit."""
    clips = torch.from_numpy(make_clips(8, 2))
    backbone, head = fold_for_inference(model.backbone, clips[0]), copy.deepcopy(model.head)
    stored = round_weights(backbone, head, kind, clips if fit else None)
    assert set(stored) == {
        "backbone.grouped.weight",
        "backbone.point.weight",
        "backbone.skip.weight",
        "head.lstm.weight_ih_l0",
        "head.lstm.weight_hh_l0",
    }
    for part, network in (("backbone", backbone), ("head", head)):
        for name, value in network.named_parameters():
            if f"{part}.{name}" in stored:
                np.testing.assert_array_equal(value.numpy(), stored[f"{part}.{name}"].restored())


def test_gptq_reduces_the_feature_error_on_unseen_clips(model: SmallModel) -> None:
    """On clips outside of the fit, GPTQ gives features nearer to those of the trained weights."""
    unseen = torch.from_numpy(make_clips(8, 3)).flatten(0, 1)
    expected = model.backbone(unseen)
    errors = []
    for clips in (None, torch.from_numpy(make_clips(24, 2))):
        backbone = fold_for_inference(model.backbone, unseen[:1])
        round_weights(backbone, copy.deepcopy(model.head), "int8", clips)
        errors.append((backbone(unseen) - expected).norm().item())
    assert errors[1] < 0.6 * errors[0]


def test_both_directions_share_a_scale() -> None:
    """ONNX stores both directions of an LSTM in one tensor, with one scale per row."""
    model = small_model(2, bidirectional=True)
    stored = round_weights(model.backbone, model.head, "int8", torch.from_numpy(make_clips(4, 2)))
    for layer in (0, 1):
        directions = [stored[f"head.lstm.weight_ih_l{layer}{end}"] for end in ("", "_reverse")]
        np.testing.assert_array_equal(directions[0].scale, directions[1].scale)


def test_the_smallest_layers_of_int8_are_float16() -> None:
    """The smallest layers, up to a tenth of the parameters, are float16; the rest is int8."""
    backbone = nn.Sequential(*(nn.Linear(n, 256) for n in (256, 64, 128, 1024, 128)))
    stored = round_weights(backbone, nn.Linear(8, 1), "int8", None)
    kinds = {name: weight.values.dtype.name for name, weight in stored.items()}
    assert kinds == {
        "backbone.0.weight": "int8",
        "backbone.1.weight": "float16",
        "backbone.2.weight": "int8",
        "backbone.3.weight": "int8",
        "backbone.4.weight": "int8",
    }


def test_float32_weights_are_not_rounded(model: SmallModel) -> None:
    """float32 weights are not rounded."""
    before = copy.deepcopy(model.head.state_dict())
    assert round_weights(model.backbone, model.head, "float32", None) == {}
    assert all(torch.equal(before[name], value) for name, value in model.head.state_dict().items())


def test_weights_that_cannot_be_stored_are_refused() -> None:
    """Weights that are not finite or beyond float16 are an error."""
    with pytest.raises(ValueError, match="not a finite number"):
        round_weight(torch.tensor([[1.0, float("nan")]]), "int8")
    with pytest.raises(ValueError, match="beyond the range of float16"):
        round_weight(torch.tensor([[1.0, 7e4]]), "float16")
