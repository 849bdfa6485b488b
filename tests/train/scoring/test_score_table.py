"""Scores gathered per video, window and frame."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.model.calibration import Calibration
from tests.train.scoring.support import difference_scorer, flat_clip
from train.scoring.clip_scores import score_clips
from train.scoring.score_table import frame_scores, video_scores, video_weights, window_scores


def test_video_score_is_the_calibrated_mean_logit_of_its_windows() -> None:
    """Clips of one video give one row, as in `scan`; each window gives one row of its own."""
    calibration = Calibration(scale=2.0, offset=1.0)
    clips = [
        flat_clip([0, 0, 0, 4], name="a_0"),
        flat_clip([0, 0, 0, 0], name="b_0", fake=False, method="original", group="h"),
        flat_clip([0, 0, 0, 8], name="a_1"),
    ]
    scores = list(score_clips(clips, difference_scorer()))
    videos = video_scores(scores, calibration)
    assert videos.videos == ("a", "b")
    # Of each clip the windows of two, three and four frames count, as in `scan`.
    assert videos.logit == pytest.approx([2.03, 0.03])
    assert videos.p_fake[0] == pytest.approx(1 / (1 + np.exp(-(videos.logit[0] + 1) / 2)))
    assert list(videos.fake) == [True, False]
    assert videos.groups == ("g", "h")
    assert window_scores(scores, calibration).videos == ("a", "b", "a")
    assert len(window_scores(scores, calibration, "short_window")) == 6
    assert len(frame_scores(scores, calibration)) == 12
    means = video_scores(scores, calibration, "frame_mean")
    assert means.videos == videos.videos
    assert means.logit == pytest.approx([0.04, 0.04])
    real = videos.select(~videos.fake)
    assert (real.videos, real.methods) == (("b",), ("original",))


def test_videos_weigh_the_same_whatever_their_length() -> None:
    """The windows of a video share its weight."""
    assert video_weights(["a", "b", "b", "b"]) == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
