"""Tests of the timeline of a scan, with frames made in memory."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from runtime.pipeline.stream_analysis import FaceVerdict, ObservedFrame
from runtime.scan_report.timeline import MIN_STILL_S, ScanTimeline, highest_scored
from streams.faces.finder import Face
from streams.input.frame import Frame

BOX = (10.0, 10.0, 20.0, 20.0)
STEP_S = 0.125


def sample(
    index: int, scores: dict[int, float], *, grey: int = 90, start_s: float = 0.0
) -> tuple[float, ObservedFrame, list[FaceVerdict]]:
    """Return the arguments of `add` for the sample of a time, with a score for each face."""
    image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8), format="rgb24")
    pts_s = start_s + index * STEP_S
    frame = Frame(
        image=image,
        pts=round(pts_s * 1000),
        time_base=Fraction(1, 1000),
        captured=None,
        decode_ms=0.0,
        connection=1,
        segment=1,
    )
    faces = tuple(Face(id=face, box=BOX, score=1.0, detected=True) for face in scores)
    observed = ObservedFrame(
        frame=frame,
        faces=faces,
        crops=np.full((len(faces), 8, 8, 3), grey, np.uint8),
        contexts=(None,) * len(faces),
        started=0.0,
        detect_ms=0.0,
        crop_ms=0.0,
    )
    verdicts = [
        FaceVerdict(
            face=face,
            state="fake" if p_fake > 0.6 else "real",
            p_fake=p_fake,
            logit=p_fake,
            box=BOX,
            size=(64, 64),
            window_fill=1.0,
            pts_s=pts_s,
            captured=None,
            latency=None,
        )
        for face, p_fake in scores.items()
    ]
    return (index + 1) * STEP_S, observed, verdicts


def test_the_highest_score_of_each_interval_is_kept() -> None:
    """An interval of half a second has four samples; its frame is the one with the highest score."""
    timeline = ScanTimeline()
    for index, p_fake in enumerate([0.1, 0.8, 0.2, 0.3, 0.4, 0.3, 0.9, 0.1]):
        timeline.add(*sample(index, {1: p_fake}, start_s=100.0))
    stills = timeline.stills()
    assert [still.p_fake for still in stills] == [0.8, 0.9]
    assert [still.media_s for still in stills] == [0.125, 0.75]
    assert [len(timeline.samples), stills[0].state, stills[1].state] == [8, "fake", "fake"]
    assert all(still.frame.startswith(b"\xff\xd8") and still.crop for still in stills)


def test_a_long_video_keeps_as_many_frames_as_a_short_one() -> None:
    """The interval doubles, the highest_scored frame stays, and the intervals do not overlap."""
    timeline = ScanTimeline(max_stills=8)
    for index in range(1000):
        timeline.add(*sample(index, {1: 0.95 if index == 613 else 0.1}))
    stills = timeline.stills()
    assert 4 <= len(stills) <= 8
    assert max(stills, key=lambda still: still.rank).media_s == pytest.approx(613 * STEP_S)
    assert stills[0].end_s - stills[0].begin_s > MIN_STILL_S
    assert all(a.end_s <= b.begin_s for a, b in pairwise(stills))
    assert len(timeline.samples) == 1000


def test_a_passer_by_does_not_count() -> None:
    """A face in view for a moment, such as a false detection, does not take the place of the others."""
    timeline = ScanTimeline()
    for index in range(16):
        timeline.add(*sample(index, {1: 0.3, 2: 0.99} if index == 12 else {1: 0.3}))
    assert {still.face for still in timeline.stills()} == {1}


def test_moments_are_apart_and_of_faces_that_count() -> None:
    """The moments are ordered by score, one for each second at most."""
    timeline = ScanTimeline()
    for index in range(40):
        timeline.add(*sample(index, {1: index / 40}))
    moments = highest_scored(timeline.stills(), {1}, count=3)
    scores = [moment.p_fake or 0.0 for moment in moments]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    times = sorted(moment.media_s for moment in moments)
    assert all(b - a >= 1 for a, b in pairwise(times))
    assert highest_scored(timeline.stills(), {2}) == []


def test_limit_must_be_at_least_two() -> None:
    """Fewer frames could not be thinned out."""
    with pytest.raises(ValueError, match="at least 2"):
        ScanTimeline(max_stills=1)
