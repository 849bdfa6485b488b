"""A trunk starts from what is there, and means the same as before."""

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
    """Eight crops of noise."""
    return torch.randint(
        0, 256, (8, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, crops: torch.Tensor) -> Path:
    """A detector whose normalisations have seen something and mean something."""
    torch.manual_seed(0)
    model = ResNeXtLSTM(CONFIG)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.9)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    with torch.no_grad():
        for _ in range(20):
            model.backbone.train()(crops)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, model.eval(), {})
    return folder


def features(backbone: Backbone, crops: torch.Tensor) -> torch.Tensor:
    """What the trunk sees."""
    with torch.no_grad():
        found: torch.Tensor = backbone.eval()(crops)
        return found


def test_a_checkpoint_is_taken_up(checkpoint: Path, crops: torch.Tensor, tmp_path: Path) -> None:
    """The trunk is the checkpoint's, and so is that of a state dict in torchvision's names."""
    one, two, three = Backbone(), Backbone(), Backbone()
    load_initial(one, checkpoint, crops)
    state = {**one.trunk.state_dict(), "fc.weight": torch.zeros(1000, 2048)}
    save_file(state, tmp_path / "trunk.safetensors")
    torch.save(state, tmp_path / "trunk.pth")
    load_initial(two, tmp_path / "trunk.safetensors", crops)
    load_initial(three, tmp_path / "trunk.pth", crops)
    assert torch.equal(features(one, crops), features(two, crops))
    assert torch.equal(features(one, crops), features(three, crops))


def test_a_bundle_is_unfolded(checkpoint: Path, crops: torch.Tensor, tmp_path: Path) -> None:
    """The trunk computes what the bundle computes, with normalisations that can be trained on."""
    export_bundle(checkpoint, tmp_path / "bundle", weights="float16")
    trained, started = Backbone(), Backbone()
    load_initial(trained, checkpoint, crops)
    load_initial(started, tmp_path / "bundle", crops)
    wanted = features(trained, crops)
    assert (features(started, crops) - wanted).abs().max() < 0.01 * wanted.abs().max()
    # Statistics are those of the crops: in training mode, too, they are told apart as before.
    with torch.no_grad():
        training = started.train()(crops)
    assert torch.corrcoef(torch.stack([training.flatten(), wanted.flatten()]))[0, 1] > 0.99


def test_what_is_no_trunk_is_refused(tmp_path: Path, crops: torch.Tensor) -> None:
    """A missing file, a file of something else, an empty folder: one line says what to give."""
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "broken.pth").write_bytes(b"h\x05.")  # a pickle that asks for what it never kept
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("missing", "text.pth", "broken.pth", "other.safetensors", "."):
        with pytest.raises(InitialWeightsError, match="give a checkpoint, a bundle"):
            load_initial(Backbone(), tmp_path / name, crops)
