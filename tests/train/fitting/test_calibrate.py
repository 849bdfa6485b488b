"""Temporal classifier and calibration are fitted with held-out clips and written into the model."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from runtime.model.calibration import Calibration
from tests.train.fitting.support import FRAMES, HELD_OUT, QUIET, write_clips
from train.data.clip_cutter import ClipSpec
from train.data.clip_set import ClipSetError, read_clip_set
from train.data.prepare import prepare
from train.fitting.calibrate import calibrate_checkpoint, fit_calibration, refit_temporal
from train.fitting.platt_scaling import CalibrationError
from train.models.checkpoint import load_checkpoint, save_checkpoint
from train.models.config import ModelConfig
from train.models.detector import ResNeXtLSTM
from train.models.trained_groups import trained_on
from train.scoring.clip_scores import ClipScores
from train.scoring.held_out import score_held_out
from train.scoring.metrics import auc
from train.scoring.score_table import window_scores
from train.scoring.scorer import open_scorer

Film = Callable[..., Path]


def scores(video: str, fake: bool, windows: tuple[float, ...]) -> ClipScores:
    """Return the scores of one clip."""
    return ClipScores(
        clip=f"{video}_0",
        video=video,
        fake=fake,
        method="x",
        group=video,
        height=90,
        samples=16,
        scan_logits=windows,
        scan_network_logits=windows,
        window_logits=windows,
        network_logits=windows,
        short_window_logits=(),
        frame_logits=(),
    )


def test_videos_weigh_the_same_whatever_their_length() -> None:
    """Fifty windows instead of one of the same video hardly change the fit."""
    rng = np.random.default_rng(0)
    once = [scores(f"v{i}", i % 2 == 1, (float(rng.normal(2 * (i % 2) - 1, 1)),)) for i in range(200)]
    longer = [scores("v0", False, once[0].window_logits * 50), *once[1:]]
    assert fit_calibration(longer).scale == pytest.approx(fit_calibration(once).scale, rel=1e-3)
    assert fit_calibration(longer).offset == pytest.approx(fit_calibration(once).offset, abs=1e-3)


def test_thresholds_are_those_of_means_over_time() -> None:
    """Windows that vary within a video do not move the thresholds away from the scores of the videos."""
    rng = np.random.default_rng(1)
    means = [float(rng.normal(3 * (i % 2), 1)) for i in range(200)]
    steady = [scores(f"v{i}", i % 2 == 1, (mean,) * 4) for i, mean in enumerate(means)]
    varied = [
        scores(f"v{i}", i % 2 == 1, tuple(mean + offset for offset in (-4, 4, -4, 4)))
        for i, mean in enumerate(means)
    ]
    found, expected = fit_calibration(varied), fit_calibration(steady)
    logits = [
        calibration.scale * np.log(calibration.threshold_fake / (1 - calibration.threshold_fake))
        - calibration.offset
        for calibration in (found, expected)
    ]
    assert logits[0] == pytest.approx(logits[1], abs=0.01)


def test_single_crops_cannot_calibrate_windows() -> None:
    """Clips without a window cannot calibrate the windows of live verdicts."""
    with pytest.raises(CalibrationError, match="long enough for a window"):
        fit_calibration([scores("a", True, ()), scores("b", False, ())])


def test_calibration_uses_the_requested_split(tmp_path: Path, film: Film, dark_bundle: Path) -> None:
    """Only clips of the split are scored; a split without clips is an error."""
    for split in ("train", "val"):
        for i in range(2):
            film(tmp_path / "videos" / split / "real" / f"{split}{i}.mp4", brightness=1.1 + i / 10)
            dark = 0.6 if split == "val" else 0.9
            film(tmp_path / "videos" / split / "fake" / f"{split}{i}.mp4", brightness=dark + i / 10)
    spec = ClipSpec(size=48, sample_hz=10, frames=8, min_frames=4)
    data = [tmp_path / "clips"]
    prepare(tmp_path / "videos", data[0], spec=spec, workers=2)
    with open_scorer(dark_bundle) as scorer:
        calibration = fit_calibration(score_held_out(scorer, data))
        assert calibration.threshold_fpr1 is None
        assert calibration.threshold_real <= 0.5 <= calibration.threshold_fake
        assert calibration != fit_calibration(score_held_out(scorer, data, split="train"))
        with pytest.raises(ClipSetError, match="split test"):
            score_held_out(scorer, data, split="test")


def test_videos_of_one_name_in_two_sets_are_two(dark_bundle: Path, tmp_path: Path) -> None:
    """Sets that were prepared separately may have videos of the same name."""
    (tmp_path / "a").mkdir()
    sets = [write_clips(tmp_path / name, HELD_OUT) for name in ("a/clips", "clips")]
    with open_scorer(dark_bundle) as scorer:
        table = score_held_out(scorer, sets, groups=HELD_OUT, console=QUIET)
    assert len({clip.video for clip in table}) == len(table) == 4 * len(HELD_OUT)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of random weights whose logits are higher for the fakes of `write_clips`."""
    config = ModelConfig(input_size=32, hidden=8, window=FRAMES, min_frames=4, sample_hz=10)
    torch.manual_seed(0)
    model = ResNeXtLSTM(config)
    folder, data = tmp_path / "checkpoint", write_clips(tmp_path / "some", HELD_OUT)
    save_checkpoint(folder, model, {})
    with open_scorer(folder) as scorer:
        windows = window_scores(score_held_out(scorer, [data], console=QUIET), Calibration())
    if auc(windows.fake, windows.logit) < 0.5:
        with torch.no_grad():
            model.head.out.weight.neg_()
        save_checkpoint(folder, model, {})
    return folder


def test_new_checkpoint_gets_a_temporal_classifier_and_a_calibration(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Both are written; the calibration is for the model with its temporal classifier."""
    data = [write_clips(tmp_path / "clips", [f"g{i}" for i in range(10)])]
    calibrate_checkpoint(checkpoint, data, val_groups=HELD_OUT, console=QUIET)
    written = load_checkpoint(checkpoint)
    assert written.temporal is not None
    with open_scorer(checkpoint) as scorer:
        again = fit_calibration(score_held_out(scorer, data, groups=HELD_OUT, console=QUIET))
    assert written.calibration is not None
    assert written.calibration.scale == pytest.approx(again.scale, rel=1e-4)
    refit_temporal(checkpoint, data, val_groups=("g0", "g1", "g2"), console=QUIET)
    clips = read_clip_set(data[0])
    assert "g2" not in trained_on(load_checkpoint(checkpoint).training, clips, clips.entries)
    assert "g9" in trained_on(load_checkpoint(checkpoint).training, clips, clips.entries)


def test_without_enough_clips_parts_are_left_out_and_reported(checkpoint: Path, tmp_path: Path) -> None:
    """Without enough training clips there is only a calibration; without held-out clips there is none."""
    screen = io.StringIO()
    console = Console(file=screen, width=200)
    data = [write_clips(tmp_path / "clips", ["g0", *HELD_OUT])]
    calibrate_checkpoint(checkpoint, data, val_groups=("g66",), console=console)
    assert load_checkpoint(checkpoint).calibration is None
    calibrate_checkpoint(checkpoint, data, val_groups=HELD_OUT, console=console)
    assert "no temporal classifier: the temporal classifier needs" in screen.getvalue()
    assert load_checkpoint(checkpoint).temporal is None
    assert load_checkpoint(checkpoint).calibration is not None
