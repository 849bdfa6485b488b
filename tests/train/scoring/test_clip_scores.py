"""What is scored, and how the scores of a video come about, on a model whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from streams.features.temporal_residuals import clip_residuals
from tests.support.temporal import uniform_temporal_classifier
from train.data.clip_set import LabelledClip
from train.scoring.clip_scores import (
    BATCH,
    Scorer,
    best_level,
    of_frames,
    of_videos,
    of_windows,
    score_clips,
)


def scorer(*, window: int = 4, min_frames: int = 2, calls: list[int] | None = None) -> Scorer:
    """Make a model: the feature is a crop's mean, the logit a window's last feature less its first."""

    def features(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if calls is not None:
            calls.append(len(crops))
        return np.asarray(crops.reshape(len(crops), -1).mean(axis=1, keepdims=True), dtype=np.float32)

    def logits(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        assert min_frames <= windows.shape[1] <= window
        return np.asarray(windows[:, -1, 0] - windows[:, 0, 0] + windows.shape[1] / 100, dtype=np.float32)

    return Scorer(
        name="difference",
        identity="test",
        input_size=8,
        crop_margin=1.3,
        sample_hz=8,
        window=window,
        min_frames=min_frames,
        calibration=None,
        features=features,
        logits=logits,
    )


def clip(values: list[int], name: str = "v_0", **facts: object) -> LabelledClip:
    """Make a clip of flat frames."""
    given: dict[str, object] = {"fake": True, "method": "swap", "group": "g", "height": 90.0, "margin": 1.3}
    frames = np.stack([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])
    return LabelledClip(clip=name, video=name.rpartition("_")[0], frames=frames, **{**given, **facts})  # type: ignore[arg-type]


def test_windows_lie_side_by_side_and_the_last_ends_with_the_clip() -> None:
    """Ten frames in windows of four: 0-3, 4-7 and 6-9; nothing is padded."""
    (found,) = score_clips([clip([0, 1, 3, 6, 10, 15, 21, 28, 36, 45])], scorer())
    assert found.windows == pytest.approx([6.04, 18.04, 24.04])
    assert found.short == pytest.approx([1.02, 3.02, 5.02, 7.02, 9.02])
    assert found.samples == 10


def test_a_clip_shorter_than_the_window_is_one_window_of_its_length() -> None:
    """Three frames are judged as three, as a buffer that is still filling is."""
    (found,) = score_clips([clip([0, 5, 20])], scorer())
    assert found.windows == pytest.approx([20.03])
    assert found.short == pytest.approx([5.02, 15.02])


def test_flicker_is_added_to_windows_and_not_to_frames() -> None:
    """What the judge says of each window's own crops is added, and the network's part is kept beside it."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (10, 8, 8, 3), np.uint8)
    shaken = replace(clip([0]), frames=frames)
    judge = uniform_temporal_classifier(0.05, bias=1.0, window=4)
    (plain,) = score_clips([shaken], scorer())
    (found,) = score_clips([shaken], replace(scorer(), temporal=judge))
    temporal = clip_residuals(frames, 1.3)
    added = [float(judge.logits(temporal[None, start : start + 4])[0]) for start in (0, 4, 6)]
    assert all(added)
    assert found.network == plain.windows
    assert found.windows == pytest.approx(np.add(plain.windows, added), rel=1e-5)
    assert (found.short, found.frames) == (plain.short, plain.frames)


def test_a_clip_shorter_than_min_frames_has_no_window() -> None:
    """Nothing is repeated to make it longer: there is a frame's diagnosis, and no verdict."""
    (found,) = score_clips([clip([7])], scorer())
    assert found.windows == found.short == ()
    assert found.frames == pytest.approx([0.04])
    assert len(of_videos([found], Calibration())) == 0
    level, scored = best_level([found], Calibration())
    assert (level, len(scored)) == ("frame", 1)


def test_a_frame_is_judged_alone_where_the_model_can() -> None:
    """A model that takes windows of one gets one frame, not a repeated one."""
    (found,) = score_clips([clip([7, 9])], scorer(min_frames=1))
    assert found.frames == pytest.approx([0.01, 0.01])


def test_the_backbone_runs_once_per_crop_in_batches() -> None:
    """However many windows a crop is in, its feature is computed once; short clips share calls."""
    calls: list[int] = []
    clips = [clip([i % 200] * 16, name=f"v{i}_0") for i in range(20)]
    assert len(list(score_clips(clips, scorer(calls=calls)))) == 20
    assert sum(calls) == 20 * 16
    assert max(calls) <= BATCH
    assert len(calls) <= 4


def test_scores_do_not_depend_on_the_company() -> None:
    """A clip scores the same alone and among others."""
    rng = np.random.default_rng(0)
    clips = [clip(list(rng.integers(0, 255, int(rng.integers(1, 12)))), name=f"v{i}_0") for i in range(30)]
    together = list(score_clips(clips, scorer()))
    alone = [next(score_clips([one], scorer())) for one in clips]
    assert together == alone


def test_damage_is_done_before_the_model_sees_the_crop() -> None:
    """What the damage gives is scored, the clip's own frames are not."""

    def reverse(one: LabelledClip) -> NDArray[np.uint8]:
        return one.frames[::-1]

    (found,) = score_clips([clip([0, 10, 20, 30])], scorer(), damage=reverse)
    assert found.windows == pytest.approx([-29.96])


def test_a_video_s_score_is_the_calibrated_mean_logit_of_its_windows() -> None:
    """Clips of one video are one score, as in `scan`; its windows are one each."""
    calibration = Calibration(scale=2.0, offset=1.0)
    scores = list(
        score_clips(
            [
                clip([0, 0, 0, 4], name="a_0"),
                clip([0, 0, 0, 0], name="b_0", fake=False, method="original", group="h"),
                clip([0, 0, 0, 8], name="a_1"),
            ],
            scorer(),
        )
    )
    videos = of_videos(scores, calibration)
    assert videos.names == ("a", "b")
    assert videos.logit == pytest.approx([6.04, 0.04])
    assert videos.p_fake[0] == pytest.approx(1 / (1 + np.exp(-(6.04 + 1) / 2)))
    assert list(videos.fake) == [True, False]
    assert videos.groups == ("g", "h")
    windows = of_windows(scores, calibration)
    assert windows.names == ("a", "b", "a")
    assert len(of_windows(scores, calibration, "short")) == 6
    assert len(of_frames(scores, calibration)) == 12
    means = of_videos(scores, calibration, "frame_mean")
    assert means.names == videos.names
    assert means.logit == pytest.approx([0.04, 0.04])
    part = videos.where(~videos.fake)
    assert (part.names, part.methods) == (("b",), ("original",))
