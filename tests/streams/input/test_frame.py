"""Choice of the frames before a sample."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streams.input.frame import PrecedingFrames


def image(width: int = 64) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.zeros((48, width, 3), np.uint8), format="rgb24")


@pytest.mark.parametrize(
    ("fps", "distance"), [(15, 1), (25, 1), (30, 1), (50, 2), (60, 2), (100, 3), (230, 6)]
)
def test_earlier_frames_are_25_to_70_milliseconds_apart(fps: int, distance: int) -> None:
    """They reach back a quarter of a second; at high rates some are left out. Older ones are dropped."""
    preceding, frames = PrecedingFrames(), [image() for _ in range(fps)]
    for index, each in enumerate(frames):
        found = preceding.before(each, index / fps)
        oldest = index - min(index, int(0.26 * fps)) // distance * distance
        assert found == tuple(frames[oldest:index:distance])
        preceding.add(each, index / fps)
        assert len(preceding._frames) <= 0.26 * fps + 1
    assert len(found) >= 3


def test_frames_before_a_gap_or_of_another_size_are_not_used() -> None:
    """At 8 frames a second there is none, nor after a gap, a step back in time or a change of size."""
    preceding = PrecedingFrames()
    preceding.add(image(), 0.0)
    assert preceding.before(image(), 0.125) == ()
    assert preceding.before(image(80), 0.04) == ()
    assert len(preceding.before(image(), 0.04)) == 1
    for time_s in (0.1, 0.14):
        preceding.add(image(), time_s)
    assert len(preceding.before(image(), 0.18)) == 2, "not beyond the gap"
    preceding.add(image(80), 0.18)
    assert preceding.before(image(), 0.22) == ()
    preceding.add(image(), -1.0)
    assert preceding.before(image(), 0.04) == ()
