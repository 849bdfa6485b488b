"""Choice of the frame before a sample."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streams.input.frame import PrecedingFrames


def image(width: int = 64) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.zeros((48, width, 3), np.uint8), format="rgb24")


@pytest.mark.parametrize(("fps", "distance"), [(15, 1), (25, 1), (30, 1), (50, 2), (60, 2), (100, 3)])
def test_the_frame_is_25_to_70_milliseconds_older(fps: int, distance: int) -> None:
    """At high frame rates it is not the last one; few frames are kept."""
    preceding, frames = PrecedingFrames(), [image() for _ in range(20)]
    for index, each in enumerate(frames):
        found = preceding.before(each, index / fps)
        assert found is (frames[index - distance] if index >= distance else None)
        preceding.add(each, index / fps)
        assert len(preceding._frames) <= distance + 1


def test_old_frames_and_frames_of_another_size_are_not_used() -> None:
    """At 8 frames a second there is none, nor after a gap, a step back in time or a change of size."""
    preceding = PrecedingFrames()
    preceding.add(image(), 0.0)
    assert preceding.before(image(), 0.125) is None
    assert preceding.before(image(80), 0.04) is None
    assert preceding.before(image(), 0.04) is not None
    preceding.add(image(), -1.0)
    assert preceding.before(image(), 0.04) is None
