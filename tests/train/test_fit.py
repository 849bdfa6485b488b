"""Training runs on real sets, and a run that was cut ends as one that was not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from skimage.data import astronaut

import train.fit
from train.fit import FitConfig, draw_batch, fit, read_pool
from train.model import ModelConfig, load_checkpoint

SIZES = ModelConfig(input_size=32, hidden=8, window=4, min_frames=2)
RUN = FitConfig(
    sizes=(32,), crops=(40,), batch=8, warmup=2, clip_passes=1, head_steps=3, val_groups=("kept-out",)
)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A set of three pairs, one of them not for training."""
    face = np.ascontiguousarray(astronaut()[40:264, 120:344, ::-1])
    folder = tmp_path / "clips"
    folder.mkdir()
    lines = ["shard,clip,fake,method,group,frames"]
    with tarfile.open(folder / "000.tar", "w") as tar:
        for group in ("a", "b", "kept-out"):
            for fake in (0, 1):
                clip = f"{'swap' if fake else 'original'}_{group}"
                lines.append(f"000.tar,{clip},{fake},{'swap' if fake else 'original'},{group},4")
                for index in range(4):
                    moved = np.roll(face, index + 5 * fake, axis=1)
                    data = cv2.imencode(".jpg", moved)[1].tobytes()
                    member = tarfile.TarInfo(f"{clip}/{index:02}.jpg")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


class CutConsole(Console):
    """Cuts the run at a step, as a kill would."""

    def log(self, *objects: object, **options: object) -> None:  # type: ignore[override]
        """Stop at the third step."""
        if str(objects[0]).startswith("trunk 3/"):
            raise KeyboardInterrupt


def test_a_group_is_kept_out(clips: Path) -> None:
    """The groups for validation are in no training pool."""
    pool = read_pool(clips, ("kept-out",), 1.02)
    assert len(pool.real) == 2
    assert {method: len(found) for method, found in pool.fake.items()} == {"swap": 2}


def test_a_batch_is_half_real(clips: Path) -> None:
    """A quarter is forged by us, with its region; a quarter is found, its region unknown."""
    rng = np.random.default_rng(0)
    crops, labels, regions, known = draw_batch([read_pool(clips, (), 1.02)], 16, 48, 1.0, rng)
    assert crops.shape == (16, 48, 48, 3)
    assert crops.dtype == torch.uint8
    assert labels.sum() == 8
    assert known.sum() == 12
    assert (regions[labels == 0] == 0).all()
    assert (regions[(labels == 1) & known].amax((1, 2)) > 0.2).all()


def test_a_cut_run_goes_on(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after two saved steps and started again, the trunk is what it is without the cut."""
    quiet = Console(quiet=True)
    fit([clips], tmp_path / "whole", model_config=SIZES, config=RUN, console=quiet)
    monkeypatch.setattr(train.fit, "SAVE_S", 0.0)
    monkeypatch.setattr(train.fit, "SHOW_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit([clips], tmp_path / "cut", model_config=SIZES, config=RUN, console=CutConsole(quiet=True))
    assert not (tmp_path / "cut/model.safetensors").exists()
    fit([clips], tmp_path / "cut", model_config=SIZES, config=RUN, console=quiet)
    whole, _ = load_checkpoint(tmp_path / "whole")
    cut, _ = load_checkpoint(tmp_path / "cut")
    for name, value in whole.backbone.state_dict().items():
        assert torch.allclose(cut.backbone.state_dict()[name], value, atol=1e-4), name


def test_another_configuration_is_refused(clips: Path, tmp_path: Path) -> None:
    """A run is not continued under other settings than it began with."""
    quiet = Console(quiet=True)
    fit([clips], tmp_path / "run", model_config=SIZES, config=RUN, console=quiet)
    other = FitConfig(sizes=(32,), crops=(48,), batch=8)
    with pytest.raises(ValueError, match="another configuration"):
        fit([clips], tmp_path / "run", model_config=SIZES, config=other, console=quiet)
