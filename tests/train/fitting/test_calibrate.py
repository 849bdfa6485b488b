"""A calibration is fitted on clips, kept beside the model, and read back as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.model.bundle import change_manifest, load_bundle
from train.data.clip_cutter import ClipSpec
from train.data.clip_set import ClipSetError
from train.data.prepare import prepare
from train.fitting.calibrate import calibrate, fit
from train.fitting.platt_scaling import CalibrationError
from train.scoring.clip_scores import ClipScores

Film = Callable[..., Path]


def scores(video: str, fake: bool, windows: tuple[float, ...]) -> ClipScores:
    """Make the scores of one clip."""
    return ClipScores(
        clip=f"{video}_0",
        video=video,
        fake=fake,
        method="x",
        group=video,
        height=90,
        samples=16,
        windows=windows,
        network=windows,
        short=(),
        frames=(),
    )


def test_videos_weigh_alike_whatever_their_length() -> None:
    """Cutting one video into fifty windows instead of one hardly moves the fit."""
    rng = np.random.default_rng(0)
    table = [scores(f"v{i}", i % 2 == 1, (float(rng.normal(2 * (i % 2) - 1, 1)),)) for i in range(200)]
    longer = [scores("v0", False, table[0].windows * 50), *table[1:]]
    assert fit(longer).scale == pytest.approx(fit(table).scale, rel=1e-3)
    assert fit(longer).offset == pytest.approx(fit(table).offset, abs=1e-3)


def test_stills_cannot_calibrate_windows() -> None:
    """A scale from repeated crops would be one of something that never happens live."""
    with pytest.raises(CalibrationError, match="long enough for a window"):
        fit([scores("a", True, ()), scores("b", False, ())])


def test_calibrate_a_model_on_its_validation_side(tmp_path: Path, film: Film, dark_bundle: Path) -> None:
    """The fit is on the side that was asked for, and lands in the model, whose figures no longer hold."""
    for side in ("train", "val"):
        for i in range(2):
            film(tmp_path / "videos" / side / "real" / f"{side}{i}.mp4", brightness=1.1 + i / 10)
            dark = 0.6 if side == "val" else 0.9
            film(tmp_path / "videos" / side / "fake" / f"{side}{i}.mp4", brightness=dark + i / 10)
    spec = ClipSpec(size=48, sample_hz=10, frames=8, min_frames=4)
    prepare(tmp_path / "videos", tmp_path / "clips", spec=spec, workers=2)
    model = tmp_path / "model"
    shutil.copytree(dark_bundle, model)
    change_manifest(model, metrics={"of another calibration": {}})
    found = calibrate(model, [tmp_path / "clips"])
    assert load_bundle(model).calibration == found
    assert load_bundle(model).metrics == {}
    assert found.threshold_fpr1 is None
    assert found.threshold_real <= 0.5 <= found.threshold_fake
    assert found != calibrate(model, [tmp_path / "clips"], split="train")
    with pytest.raises(ClipSetError, match="split test"):
        calibrate(model, [tmp_path / "clips"], split="test")
