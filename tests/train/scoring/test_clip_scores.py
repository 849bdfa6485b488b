"""Scores of clips, from a model with known logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.model.calibration import Calibration
from runtime.model.video_score import scored_windows
from runtime.pipeline.window import FaceWindow
from streams.features.temporal_residuals import ResidualMeter
from tests.support.temporal import context_of, residuals_of, uniform_temporal_classifier
from tests.train.scoring.support import difference_scorer, flat_clip
from train.data.clip_set import LabelledClip
from train.errors import Diverged
from train.scoring.clip_scores import BATCH, add_temporal, score_clips
from train.scoring.score_table import video_or_frame_scores, video_scores


def test_windows_are_adjacent_and_the_last_one_ends_with_the_clip() -> None:
    """Ten frames in windows of four: 0-3, 4-7 and 6-9, without padding."""
    (scores,) = score_clips([flat_clip([0, 1, 3, 6, 10, 15, 21, 28, 36, 45])], difference_scorer())
    assert scores.window_logits == pytest.approx([6.04, 18.04, 24.04])
    assert scores.short_window_logits == pytest.approx([1.02, 3.02, 5.02, 7.02, 9.02])
    assert scores.samples == 10


def test_videos_are_scored_by_the_windows_of_scan() -> None:
    """`scan` scores a window that ends with each sample, as long as possible; `evaluate` scores the same."""
    (scores,) = score_clips([flat_clip([0, 1, 3, 6, 10, 15])], difference_scorer())
    assert scores.scan_logits == pytest.approx([1.02, 3.03, 6.04, 9.04, 12.04])
    videos = video_scores([scores], Calibration())
    assert videos.logit == pytest.approx([np.mean(scores.scan_logits)])


def test_clip_shorter_than_the_window_is_one_window_of_its_length() -> None:
    """Three frames are scored as a window of three, like a live window that is still filling."""
    (scores,) = score_clips([flat_clip([0, 5, 20])], difference_scorer())
    assert scores.window_logits == pytest.approx([20.03])
    assert scores.short_window_logits == pytest.approx([5.02, 15.02])


def test_temporal_logits_are_added_to_windows_and_not_to_frames() -> None:
    """The temporal classifier's logit of each window is added; the network's logits are kept beside it."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (10, 8, 8, 3), np.uint8)
    residuals = residuals_of(frames)
    noisy = replace(flat_clip([0]), frames=frames, residuals=residuals)
    temporal = uniform_temporal_classifier(0.05, bias=1.0, window=4)
    scorer = difference_scorer()
    (plain,) = score_clips([noisy], scorer)
    (scores,) = score_clips([noisy], replace(scorer, temporal=temporal))
    added = [float(temporal.logits(residuals[None, start : start + 4])[0]) for start in (0, 4, 6)]
    assert all(added)
    assert scores.network_logits == plain.window_logits
    assert scores.scan_network_logits == plain.scan_logits
    spans = scored_windows(10, window=4, min_frames=2)
    added_to_scan = [float(temporal.logits(residuals[None, start:end])[0]) for start, end in spans]
    assert scores.scan_logits == pytest.approx(np.add(plain.scan_logits, added_to_scan), rel=1e-5)
    assert scores.window_logits == pytest.approx(np.add(plain.window_logits, added), rel=1e-5)
    assert scores.short_window_logits == plain.short_window_logits
    assert scores.frame_logits == plain.frame_logits
    np.testing.assert_array_equal(plain.residuals, residuals)
    assert add_temporal(plain, residuals, temporal, scorer) == scores


def test_residuals_between_measured_samples_are_left_out() -> None:
    """A model that measures every second sample is scored on the residuals of these alone."""
    frames = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    residuals = residuals_of(frames)
    clip = replace(flat_clip([0]), frames=frames, residuals=residuals)
    scorer = replace(difference_scorer(), feature_every=2)
    (scores,) = score_clips([clip], scorer)
    assert scores.residuals is not None
    assert np.isnan(scores.residuals[1::2]).all()
    np.testing.assert_array_equal(scores.residuals[::2], residuals[::2])


@pytest.mark.parametrize("transformed", [False, True])
def test_without_residuals_the_network_alone_is_scored(transformed: bool) -> None:
    """A clip without temporal residuals, or with other frames than they were measured on, has none."""
    frames = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    clip = replace(flat_clip([0]), frames=frames, residuals=residuals_of(frames) if transformed else None)
    temporal = uniform_temporal_classifier(0.05, bias=1.0, window=4)
    (scores,) = score_clips(
        [clip],
        replace(difference_scorer(), temporal=temporal),
        transform=(lambda clip: clip.frames) if transformed else None,
    )
    assert scores.residuals is None
    assert scores.window_logits == scores.network_logits
    assert scores.scan_logits == scores.scan_network_logits


def test_clip_shorter_than_min_frames_has_no_window() -> None:
    """Nothing is padded: the clip has frame logits for diagnosis, and no window."""
    (scores,) = score_clips([flat_clip([7])], difference_scorer())
    assert scores.window_logits == scores.short_window_logits == ()
    assert scores.residuals is None
    assert scores.frame_logits == pytest.approx([0.04])
    assert len(video_scores([scores], Calibration())) == 0
    level, table = video_or_frame_scores([scores], Calibration())
    assert (level, len(table)) == ("frame", 1)


def test_single_frame_is_a_window_of_one_where_the_model_takes_it() -> None:
    """A model with `min_frames` 1 gets one frame, not a repeated one."""
    (scores,) = score_clips([flat_clip([7, 9])], difference_scorer(min_frames=1))
    assert scores.frame_logits == pytest.approx([0.01, 0.01])


def test_backbone_runs_once_per_crop_in_batches() -> None:
    """A crop's feature is computed once, whatever the number of its windows; short clips share a batch."""
    calls: list[int] = []
    clips = [flat_clip([i % 200] * 16, name=f"v{i}_0") for i in range(20)]
    assert len(list(score_clips(clips, difference_scorer(calls=calls)))) == 20
    assert sum(calls) == 20 * 16
    assert max(calls) <= BATCH
    assert len(calls) <= 4


def test_scores_do_not_depend_on_the_other_clips() -> None:
    """A clip has the same scores alone and among others."""
    rng = np.random.default_rng(0)
    clips = [
        flat_clip(list(rng.integers(0, 255, int(rng.integers(1, 12)))), name=f"v{i}_0") for i in range(30)
    ]
    together = list(score_clips(clips, difference_scorer()))
    alone = [next(score_clips([clip], difference_scorer())) for clip in clips]
    assert together == alone


def test_transformed_frames_are_scored() -> None:
    """The frames that the transform returns are scored instead of the clip's own."""

    def reverse(clip: LabelledClip) -> NDArray[np.uint8]:
        return clip.frames[::-1]

    (scores,) = score_clips([flat_clip([0, 10, 20, 30])], difference_scorer(), transform=reverse)
    assert scores.window_logits == pytest.approx([-29.96])


def test_windows_without_motion_are_left_out_as_in_scan() -> None:
    """A clip that moves and then stands still has the windows that `scan` scores; a still one has none."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (2, 6, 6, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    shown = [0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    temporal = uniform_temporal_classifier(0.05, bias=1.0, window=8)
    scorer = replace(difference_scorer(window=8, min_frames=2), input_size=48, temporal=temporal)
    moving = replace(flat_clip([0]), frames=faces[shown], residuals=residuals_of(faces[shown]))
    (scores,) = score_clips([moving], scorer)
    window = FaceWindow(8, 1, ResidualMeter())
    still = []
    for index, face in enumerate(shown):
        window.push(index / 8, faces[face], np.zeros(1, np.float32), context=context_of(faces[face]))
        still.append(window.still)
    assert scores.moving == tuple(value is False for value in still[1:])
    assert {True, False} <= set(scores.moving)
    assert len(scores.scan_logits) == len(scores.scan_network_logits) == sum(scores.moving)
    still_faces = faces[[0] * 14]
    frozen_clip = replace(flat_clip([0]), frames=still_faces, residuals=residuals_of(still_faces))
    (frozen,) = score_clips([frozen_clip], scorer)
    assert len(video_scores([frozen], Calibration())) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_model_is_refused(value: float) -> None:
    """Its logits are no finite numbers, of which there is no probability."""
    scorer = replace(difference_scorer(), logits=lambda windows: np.full(len(windows), value, np.float32))
    with pytest.raises(Diverged, match="a logit of difference is not a finite number"):
        list(score_clips([flat_clip([1, 2, 3, 4])], scorer))
