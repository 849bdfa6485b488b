"""The judge of flicker is fitted on clips, weighed on others, and written into the model."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from skimage.data import astronaut

import unmask
from runtime.model.bundle import change_manifest, load_bundle
from runtime.model.calibration import Calibration
from tests.train.conftest import write_clip
from train.data.clip_set import ClipSetError
from train.fitting.calibrate import score_held_out
from train.fitting.temporal_classifier import (
    TemporalClassifierError,
    fit_temporal_classifier,
)
from train.models.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.scoring.metrics import auc
from train.scoring.scorer import open_scorer
from train.scoring.clip_scores import of_videos

QUIET = Console(quiet=True)
FRAMES = 8
HELD = ("g6", "g7", "g8", "g9")


def write_clips(
    folder: Path, groups: Collection[str], *, frames: int = FRAMES, forged: Collection[bool] = (False, True)
) -> Path:
    """Write a set of moving faces, dark or light by chance; what is in the forged ones trembles."""
    folder.mkdir()
    portrait = np.asarray(astronaut(), np.uint8)[0:224, 110:334]  # type: ignore[no-untyped-call]
    face = cv2.resize(portrait, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    middle = np.zeros((64, 64), np.float32)
    cv2.circle(middle, (32, 32), 18, 1.0, -1)
    middle = cv2.GaussianBlur(middle, (0, 0), 3)[..., None]
    lines = ["shard,clip,fake,method,group,frames"]
    with tarfile.open(folder / "000.tar", "w") as tar:
        for number, (group, fake) in enumerate((group, fake) for group in groups for fake in forged):
            rng = np.random.default_rng(number)
            clip = f"{'swap' if fake else 'original'}{group}_0"
            light, drift = rng.uniform(0.7, 1.0) - 0.12 * fake, rng.normal(0, 0.6, 2)
            pictures = []
            for index in range(frames):
                turn = np.array([[1, 0, drift[0] * index], [0, 1, drift[1] * index]], np.float32)
                moved = cv2.warpAffine(light * face, turn, (64, 64), borderMode=cv2.BORDER_REPLICATE)
                shaken = moved + (rng.uniform(-10, 10) * middle if fake else 0)
                pictures.append(np.clip(shaken, 0, 255).astype(np.uint8)[..., ::-1])
            lines.append(write_clip(tar, clip, fake, group, pictures, ".png"))
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def model(tmp_path: Path, dark_bundle: Path) -> Path:
    """A bundle whose network hears nothing but how dark a face is."""
    return Path(shutil.copytree(dark_bundle, tmp_path / "model"))


def video_auc(model: Path, data: Path, reading: str) -> float:
    with open_scorer(model) as scorer:
        table = score_held_out(scorer, [data], groups=HELD, console=QUIET)
    videos = of_videos(table, Calibration(), reading)  # type: ignore[arg-type]
    return auc(videos.fake, videos.logit)


def test_what_trembles_is_learned_and_told_of_others(model: Path, tmp_path: Path) -> None:
    """Fitted on some groups, it tells forgeries of other groups apart where the network cannot."""
    data = write_clips(tmp_path / "clips", [f"g{i}" for i in range(10)])
    judge = fit_temporal_classifier(model, [data], val_groups=HELD, console=QUIET)
    assert load_bundle(model).temporal == judge
    assert judge.window == FRAMES
    assert video_auc(model, data, "network") < 0.95
    assert video_auc(model, data, "windows") > 0.95


def test_what_is_kept_out_is_only_for_weighing(model: Path, tmp_path: Path) -> None:
    """Whatever the held-out clips show, the fit is one of the others, up to the common scale."""
    whole = write_clips(tmp_path / "whole", [f"g{i}" for i in range(10)])
    fewer = write_clips(tmp_path / "fewer", [f"g{i}" for i in range(8)])
    one, other = (
        fit_temporal_classifier(model, [data], val_groups=HELD, console=QUIET) for data in (whole, fewer)
    )
    # H.264 does not come out the same to the last bit each time.
    assert one.centre == pytest.approx(other.centre, abs=0.02)
    assert np.corrcoef(one.weights, other.weights)[0, 1] > 0.98


def test_what_the_training_kept_out_is_kept_out_again(model: Path, tmp_path: Path) -> None:
    """A model that says what it was trained on is not weighed on that; what it kept out is the default."""
    data = write_clips(tmp_path / "clips", [f"g{i}" for i in range(10)])
    change_manifest(model, training={"sets": ["clips"], "fit": {"val_groups": list(HELD)}})
    with pytest.raises(TemporalClassifierError, match="was trained on some clips"):
        fit_temporal_classifier(model, [data], val_groups=["g0", "g1"], console=QUIET)
    found = fit_temporal_classifier(model, [data], console=QUIET)
    again = fit_temporal_classifier(model, [data], val_groups=HELD, console=QUIET)
    assert np.corrcoef(found.weights, again.weights)[0, 1] > 0.98


def test_videos_of_one_name_in_two_sets_are_two(model: Path, tmp_path: Path) -> None:
    """Sets that were prepared apart may name their videos alike."""
    (tmp_path / "a").mkdir()
    sets = [write_clips(tmp_path / name, HELD) for name in ("a/clips", "clips")]
    with open_scorer(model) as scorer:
        table = score_held_out(scorer, sets, groups=HELD, console=QUIET)
    assert len(of_videos(table, Calibration())) == len(table) == 4 * len(HELD)


def test_what_cannot_be_fitted_is_named_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    """Nothing kept out, one kind only, clips too short for a window, or one group: each says what to do."""
    before = (model / "manifest.json").read_bytes()
    groups = [f"g{i}" for i in range(8)]
    for name, data, held, message in (
        ("whole", {"groups": groups}, (), "kept out"),
        ("real", {"groups": groups, "forged": (False,)}, HELD, "real and forged"),
        ("short", {"groups": groups, "frames": FRAMES - 1}, HELD, f"clips of {FRAMES} crops"),
        ("one", {"groups": ["g0", "g6", "g7"]}, HELD, "two groups or more"),
        ("typo", {"groups": groups}, ("g66",), "groups that the sets have"),
    ):
        folder = write_clips(tmp_path / name, **data)  # type: ignore[arg-type]
        with pytest.raises(TemporalClassifierError, match=message):
            fit_temporal_classifier(model, [folder], val_groups=held, console=QUIET)
    with pytest.raises(ClipSetError):
        fit_temporal_classifier(model, [tmp_path / "nowhere"], val_groups=HELD, console=QUIET)
    assert (model / "manifest.json").read_bytes() == before


def test_the_command_fits_calibrates_and_names(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command leaves a model that can be measured; a mistake is one line."""
    data = write_clips(tmp_path / "clips", [f"g{i}" for i in range(10)])
    held = ["--val-groups", ",".join(HELD)]
    assert unmask.run(["train", "temporal", str(model), str(data), *held, "--name", "mine"]) == 0
    bundle = load_bundle(model)
    assert bundle.name == "mine"
    assert bundle.temporal is not None
    assert bundle.calibration != Calibration(scale=2.0, offset=0.5, threshold_fake=0.7, threshold_real=0.3)
    capsys.readouterr()
    for wrong, told in (
        ([str(model), str(data)], "kept out"),
        ([str(model), str(data), *held, "--seed", "-1"], "--seed"),
        ([str(model), str(data), *held, "--name", ""], "--name is empty"),
        ([str(tmp_path / "none"), str(data), *held], "none"),
        ([str(model), str(tmp_path), *held], "clips.csv"),
        ([str(tmp_path), str(data), *held, "--name", "mine"], "--name"),
    ):
        assert unmask.run(["train", "temporal", *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line


def test_a_checkpoint_without_a_judge_has_none_and_a_broken_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flicker is optional; a file that cannot be read is not taken for none, and fitting again mends it."""
    sizes = ModelConfig(input_size=32, hidden=8, window=FRAMES, min_frames=4, sample_hz=10)
    checkpoint = tmp_path / "checkpoint"
    torch.manual_seed(0)
    save_checkpoint(checkpoint, ResNeXtLSTM(sizes), {})
    assert load_checkpoint(checkpoint).temporal is None
    (checkpoint / "temporal.json").write_text("{}")
    with pytest.raises(CheckpointError, match="unmask train temporal"):
        load_checkpoint(checkpoint)
    data = write_clips(tmp_path / "clips", [f"g{i}" for i in range(10)])
    arguments = [
        "train",
        "evaluate",
        str(data),
        "--model",
        str(checkpoint),
        "--out",
        str(tmp_path / "report"),
    ]
    assert unmask.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "temporal.json" in line
    with open_scorer(checkpoint, temporal=False) as scorer:
        assert scorer.temporal is None


def test_a_new_network_leaves_no_judge_of_the_old_one(tmp_path: Path) -> None:
    """What was fitted to other weights must not speak beside these."""
    for name in ("temporal.json", "calibration.json"):
        (tmp_path / name).write_text("{}")
    sizes = ModelConfig(input_size=32, hidden=8, window=FRAMES, min_frames=4)
    save_checkpoint(tmp_path, ResNeXtLSTM(sizes), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
