"""Rounded weights: stored small, restored exactly, and fitted to what the layers see."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.rounding import conv_gram, round_weights, rounded
from runtime.model.manifest import Weights
from tests.export.conftest import SmallModel, make_clips, small_model


def test_int8_is_within_half_a_step_of_its_channel() -> None:
    """Each output channel has its own scale, set by its largest weight."""
    weight = torch.randn(8, 5, 3, 3) * torch.logspace(-4, 2, 8).view(-1, 1, 1, 1)
    stored = rounded(weight, "int8")
    assert stored.values.dtype == np.int8
    assert stored.scale is not None
    assert np.abs(stored.values).reshape(8, -1).max(1).tolist() == [127] * 8
    error = np.abs(stored.restored() - weight.numpy()).reshape(8, -1).max(1)
    assert (error <= 0.5001 * stored.scale).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    """A dead channel has no largest weight to set its scale by."""
    weight = torch.zeros(4, 6)
    weight[1] = 1.0
    for gram in (None, torch.eye(6, dtype=torch.float64)[None]):
        np.testing.assert_array_equal(rounded(weight, "int8", gram).restored(), weight.numpy())


def test_fitted_rounding_is_better_where_it_counts() -> None:
    """On correlated inputs the layer's output error is a fraction of that of rounding to nearest."""
    torch.manual_seed(0)
    seen = torch.randn(4000, 20) @ torch.randn(20, 96) + 3.0
    weight = torch.randn(32, 96)
    errors = []
    for gram in (None, (seen.T @ seen).double()[None]):
        restored = torch.from_numpy(rounded(weight, "int8", gram).restored())
        errors.append((seen @ (restored - weight).T).norm().item())
    assert errors[1] < 0.25 * errors[0]


def test_fitted_rounding_takes_inputs_that_never_fire() -> None:
    """Channels behind a dead ReLU make the Gram matrix singular; their weights still round near."""
    seen = torch.randn(50, 12).relu()
    seen[:, 3] = 0
    weight = torch.randn(4, 12)
    restored = rounded(weight, "int8", (seen.T @ seen).double()[None]).restored()
    assert np.isfinite(restored).all()
    assert np.abs(restored - weight.numpy())[:, 3].max() < 0.1


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 1, 1, groups=4), nn.Conv2d(4, 4, 1, 2)]
)
def test_conv_gram_measures_the_output(conv: nn.Conv2d) -> None:
    """The Gram matrix gives the energy of the convolution's output, group by group."""
    maps = torch.randn(20, conv.in_channels, 9, 7)
    gram = conv_gram(conv, maps)
    rows = conv.weight.detach().flatten(1).double().unflatten(0, (conv.groups, -1))
    energy = torch.einsum("goi,gij,goj->go", rows, gram, rows).flatten()
    bias = conv.bias.detach() if conv.bias is not None else torch.zeros(conv.out_channels)
    outputs = conv(maps).detach() - bias.view(1, -1, 1, 1)
    torch.testing.assert_close(energy, outputs.double().pow(2).sum((0, 2, 3)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["int8", "float16"])
@pytest.mark.parametrize("fit", [False, True])
def test_networks_compute_with_what_is_stored(model: SmallModel, kind: Weights, fit: bool) -> None:
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


def test_fitting_brings_the_features_nearer(model: SmallModel) -> None:
    """On clips that the rounding has not seen, fitted weights give features nearer to the trained ones."""
    unseen = torch.from_numpy(make_clips(8, 3)).flatten(0, 1)
    expected = model.backbone(unseen)
    errors = []
    for clips in (None, torch.from_numpy(make_clips(24, 2))):
        backbone = fold_for_inference(model.backbone, unseen[:1])
        round_weights(backbone, copy.deepcopy(model.head), "int8", clips)
        errors.append((backbone(unseen) - expected).norm().item())
    assert errors[1] < 0.6 * errors[0]


def test_both_directions_share_a_scale() -> None:
    """ONNX holds both directions of an LSTM in one tensor, with one scale per row."""
    model = small_model(2, bidirectional=True)
    stored = round_weights(model.backbone, model.head, "int8", torch.from_numpy(make_clips(4, 2)))
    for layer in (0, 1):
        ways = [stored[f"head.lstm.weight_ih_l{layer}{end}"] for end in ("", "_reverse")]
        np.testing.assert_array_equal(ways[0].scale, ways[1].scale)


def test_the_smallest_layers_of_int8_are_float16() -> None:
    """A tenth of the parameters, smallest layers first, keeps more digits; the rest is int8."""
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


def test_float32_is_left_alone(model: SmallModel) -> None:
    """Nothing is rounded where nothing is to be stored smaller."""
    before = copy.deepcopy(model.head.state_dict())
    assert round_weights(model.backbone, model.head, "float32", None) == {}
    assert all(torch.equal(before[name], value) for name, value in model.head.state_dict().items())


def test_impossible_weights_are_refused() -> None:
    """A diverged model, or one beyond float16, is told apart here and not by its verdicts."""
    with pytest.raises(ValueError, match="not a finite number"):
        rounded(torch.tensor([[1.0, float("nan")]]), "int8")
    with pytest.raises(ValueError, match="beyond the range of float16"):
        rounded(torch.tensor([[1.0, 7e4]]), "float16")
