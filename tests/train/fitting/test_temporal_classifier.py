"""The temporal classifier is fitted on clips, scaled on held-out clips, and written into the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import unmask
from runtime.model.bundle import change_manifest, load_bundle
from runtime.model.calibration import Calibration
from streams.features.temporal_residuals import LAG, without_frames
from tests.train.fitting.support import FRAMES, HELD_OUT, QUIET, write_clips
from train.data.clip_set import ClipSetError, load_residuals, read_clip_set
from train.data.splits import GroupUnknown
from train.fitting.calibrate import refit_temporal
from train.fitting.temporal_examples import TemporalClassifierError
from train.models.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.models.trained_groups import trained_on
from train.scoring.held_out import score_held_out
from train.scoring.metrics import auc
from train.scoring.score_table import LogitKind, video_scores
from train.scoring.scorer import open_scorer

GROUPS = [f"g{i}" for i in range(10)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip set of ten groups."""
    return write_clips(tmp_path_factory.mktemp("ten") / "clips", GROUPS)


@pytest.fixture
def model(tmp_path: Path, dark_bundle: Path) -> Path:
    """A bundle whose network sees only how dark a face is."""
    return Path(shutil.copytree(dark_bundle, tmp_path / "model"))


def video_auc(model: Path, data: Path, kind: LogitKind) -> float:
    with open_scorer(model) as scorer:
        scores = score_held_out(scorer, [data], groups=HELD_OUT, console=QUIET)
    videos = video_scores(scores, Calibration(), kind)
    return auc(videos.fake, videos.logit)


def test_varying_fakes_are_detected_in_other_groups(model: Path, data: Path) -> None:
    """Fitted on some groups, it separates other groups where the network cannot."""
    change_manifest(model, metrics={"of another calibration": {}})
    temporal = refit_temporal(model, [data], val_groups=HELD_OUT, console=QUIET)
    assert load_bundle(model).temporal == temporal
    assert load_bundle(model).metrics == {}
    clips = read_clip_set(data)
    assert trained_on(load_bundle(model).training, clips, clips.entries) == GROUPS[:6]
    assert temporal.window == FRAMES
    assert video_auc(model, data, "network") < 0.95
    assert video_auc(model, data, "window") > 0.95
    # It will be replaced itself, so other groups may be held out next.
    refit_temporal(model, [data], val_groups=GROUPS[:4], console=QUIET)
    assert trained_on(load_bundle(model).training, clips, clips.entries) == GROUPS[4:]


def test_fakes_are_detected_without_frames_between_the_samples(model: Path, data: Path) -> None:
    """The second regression separates other groups as well, and is about as confident as the first."""
    temporal = refit_temporal(model, [data], val_groups=HELD_OUT, console=QUIET)
    clips = read_clip_set(data)
    entries = [entry for entry in clips.entries if entry.group in HELD_OUT]
    windows = np.stack(list(load_residuals(clips, entries)))
    fake = np.array([entry.fake for entry in entries])
    complete, slow = temporal.logits(windows), temporal.logits(without_frames(windows))
    assert np.isfinite(windows[:, LAG:]).all()
    assert auc(fake, slow) > 0.95
    assert np.abs(complete - slow).max() > 0.1
    assert 0.3 < np.abs(slow).mean() / np.abs(complete).mean() < 3


def test_held_out_clips_only_set_the_scale(model: Path, data: Path, tmp_path: Path) -> None:
    """The fit does not depend on the held-out clips, up to a common scale."""
    fewer = write_clips(tmp_path / "fewer", GROUPS[:8])
    one = refit_temporal(model, [data], val_groups=HELD_OUT, console=QUIET)
    other = refit_temporal(model, [fewer], val_groups=HELD_OUT[:2], console=QUIET)
    # H.264 does not give the same bits each time.
    assert one.centre == pytest.approx(other.centre, abs=0.02)
    assert np.corrcoef(one.with_frames.weights, other.with_frames.weights)[0, 1] > 0.98


def test_groups_held_out_in_training_are_held_out_again(model: Path, data: Path) -> None:
    """The groups held out in training are the default; groups of the training are refused."""
    change_manifest(model, training={"sets": ["clips"], "fit": {"val_groups": list(HELD_OUT)}})
    with pytest.raises(TemporalClassifierError, match="was trained on some of the held-out clips"):
        refit_temporal(model, [data], val_groups=["g0", "g1"], console=QUIET)
    by_default = refit_temporal(model, [data], console=QUIET)
    by_name = refit_temporal(model, [data], val_groups=HELD_OUT, console=QUIET)
    assert np.corrcoef(by_default.with_frames.weights, by_name.with_frames.weights)[0, 1] > 0.98


def test_failed_fit_is_explained_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    """Nothing held out, one class, clips shorter than a window, or one group: each error has advice."""
    before = (model / "manifest.json").read_bytes()
    groups = GROUPS[:8]
    for name, facts, held_out, message in (
        ("whole", {"groups": groups}, (), "held out"),
        ("real", {"groups": groups, "labels": (False,)}, HELD_OUT[:2], "real and fake"),
        ("short", {"groups": groups, "frames": FRAMES - 1}, HELD_OUT[:2], f"clips of {FRAMES} crops"),
        ("one", {"groups": ["g0", "g6", "g7"]}, HELD_OUT[:2], "two groups or more"),
    ):
        folder = write_clips(tmp_path / name, **facts)
        with pytest.raises(TemporalClassifierError, match=message):
            refit_temporal(model, [folder], val_groups=held_out, console=QUIET)
    with pytest.raises(GroupUnknown, match="'g66'"):
        refit_temporal(model, [folder], val_groups=("g66",), console=QUIET)
    with pytest.raises(ClipSetError):
        refit_temporal(model, [tmp_path / "nowhere"], val_groups=HELD_OUT, console=QUIET)
    assert (model / "manifest.json").read_bytes() == before


def test_command_fits_calibrates_and_renames(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command changes classifier, calibration and name; a user error is one line."""
    held_out = ["--val-groups", ",".join(HELD_OUT)]
    assert unmask.run(["train", "temporal", str(model), str(data), *held_out, "--name", "mine"]) == 0
    bundle = load_bundle(model)
    assert bundle.name == "mine"
    assert bundle.temporal is not None
    assert bundle.calibration != Calibration(scale=2.0, offset=0.5, threshold_fake=0.7, threshold_real=0.3)
    capsys.readouterr()
    for arguments, message in (
        ([str(model), str(data)], "held out"),
        ([str(model), str(data), *held_out, "--seed", "-1"], "--seed"),
        ([str(model), str(data), *held_out, "--name", ""], "--name is empty"),
        ([str(tmp_path / "none"), str(data), *held_out], "none"),
        ([str(model), str(tmp_path), *held_out], "clips.csv"),
        ([str(tmp_path), str(data), *held_out, "--name", "mine"], "--name"),
    ):
        assert unmask.run(["train", "temporal", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_broken_temporal_classifier_of_a_checkpoint_is_an_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is optional; a broken file is an error on loading but does not prevent a new fit."""
    config = ModelConfig(input_size=32, hidden=8, window=FRAMES, min_frames=4, sample_hz=10)
    checkpoint = tmp_path / "checkpoint"
    torch.manual_seed(0)
    save_checkpoint(checkpoint, ResNeXtLSTM(config), {})
    assert load_checkpoint(checkpoint).temporal is None
    (checkpoint / "temporal.json").write_text("{}")
    with pytest.raises(CheckpointError, match="unmask train temporal"):
        load_checkpoint(checkpoint)
    arguments = ["train", "evaluate", data, "--model", checkpoint, "--out", tmp_path / "report"]
    assert unmask.run(list(map(str, arguments))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "temporal.json" in line
    with open_scorer(checkpoint, temporal=False) as scorer:
        assert scorer.temporal is None


def test_new_network_discards_the_temporal_classifier_of_the_old_one(tmp_path: Path) -> None:
    """A classifier and a calibration fitted to other weights are deleted."""
    for name in ("temporal.json", "calibration.json"):
        (tmp_path / name).write_text("{}")
    config = ModelConfig(input_size=32, hidden=8, window=FRAMES, min_frames=4)
    save_checkpoint(tmp_path, ResNeXtLSTM(config), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
