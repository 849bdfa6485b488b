"""Tests of loading initial weights into the backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from export.bundle_writer import export_bundle
from train.models.checkpoint import save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import Backbone, ResNeXtLSTM
from train.models.initial_weights import InitialWeightsError, load_initial

CONFIG = ModelConfig(input_size=64, window=4, min_frames=2, hidden=8)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Return eight crops of noise."""
    return torch.randint(
        0, 256, (8, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, crops: torch.Tensor) -> Path:
    """Write a detector with non-trivial batch normalisations."""
    torch.manual_seed(0)
    model = ResNeXtLSTM(CONFIG)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.9)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = 0.88  # as much as twenty passes with the default of 0.1
    with torch.no_grad():
        model.backbone.train()(crops)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, model.eval(), {})
    return folder


def features(backbone: Backbone, crops: torch.Tensor) -> torch.Tensor:
    """Return the features of crops."""
    with torch.no_grad():
        found: torch.Tensor = backbone.eval()(crops)
        return found


def test_a_checkpoint_is_loaded(checkpoint: Path, crops: torch.Tensor, tmp_path: Path) -> None:
    """A checkpoint and state dicts with torchvision's names give the same backbone."""
    one, two, three = Backbone(), Backbone(), Backbone()
    load_initial(one, checkpoint, crops)
    state = {**one.trunk.state_dict(), "fc.weight": torch.zeros(1000, 2048)}
    save_file(state, tmp_path / "backbone.safetensors")
    torch.save(state, tmp_path / "backbone.pth")
    load_initial(two, tmp_path / "backbone.safetensors", crops)
    load_initial(three, tmp_path / "backbone.pth", crops)
    assert torch.equal(features(one, crops), features(two, crops))
    assert torch.equal(features(one, crops), features(three, crops))


def test_a_bundle_is_loaded(checkpoint: Path, crops: torch.Tensor, tmp_path: Path) -> None:
    """The backbone has the outputs of the bundle, in training mode too."""
    export_bundle(checkpoint, tmp_path / "bundle", weights="float16")
    trained, started = Backbone(), Backbone()
    load_initial(trained, checkpoint, crops)
    load_initial(started, tmp_path / "bundle", crops)
    wanted = features(trained, crops)
    assert (features(started, crops) - wanted).abs().max() < 0.01 * wanted.abs().max()
    # The statistics are those of the crops, so training mode changes little.
    with torch.no_grad():
        training = started.train()(crops)
    assert torch.corrcoef(torch.stack([training.flatten(), wanted.flatten()]))[0, 1] > 0.99


def test_other_files_are_refused(tmp_path: Path, crops: torch.Tensor) -> None:
    """A missing file, other files and an empty folder are errors with advice."""
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "broken.pth").write_bytes(b"h\x05.")  # a pickle that asks for what it never kept
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("missing", "text.pth", "broken.pth", "other.safetensors", "."):
        with pytest.raises(InitialWeightsError, match="give a checkpoint, a bundle"):
            load_initial(Backbone(), tmp_path / name, crops)
