"""A face with its surroundings, cut from a sample and from the frames before it."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from streams.faces.context import cut_context
from streams.faces.crop import Box
from streams.features import frame_changes
from streams.features.temporal_residuals import SIZE
from streams.input.frame import Frame


def frame(value: int, *earlier: int) -> Frame:
    def image(grey: int) -> av.VideoFrame:
        return av.VideoFrame.from_ndarray(np.full((300, 400, 3), grey, np.uint8), format="rgb24")

    return Frame(
        image=image(value),
        pts=0,
        time_base=Fraction(1, 8),
        captured=None,
        decode_ms=0.0,
        connection=1,
        segment=1,
        earlier=tuple(image(grey) for grey in earlier),
    )


def test_the_same_square_is_cut_from_all_frames() -> None:
    """All crops have their fixed size; without earlier frames there is one of each kind."""
    context = cut_context(frame(200, 50, 100), (180, 120, 40, 50))
    assert context.current.shape == (SIZE, SIZE, 3)
    assert (context.current == 200).all()
    assert context.previous is not None
    assert (context.previous == 100).all()
    assert [image.shape for image in context.history] == [(frame_changes.SIZE, frame_changes.SIZE)] * 3
    assert [int(image.mean()) for image in context.history] == [50, 100, 200]
    alone = cut_context(frame(200), (180, 120, 40, 50))
    assert alone.previous is None
    assert len(alone.history) == 1


def test_a_sample_is_compared_with_the_picture_before_its_own() -> None:
    """Frames that repeat the picture of the sample are passed over, and there may be no other."""
    box = (180.0, 120.0, 40.0, 50.0)
    context = cut_context(frame(200, 50, 100, 150, 200, 200), box)
    assert context.previous is not None
    assert (context.previous == 150).all()
    assert len(context.history) == 6
    assert cut_context(frame(200, 200, 200), box).previous is None


@pytest.mark.parametrize(
    ("box", "visible"),
    [
        ((180, 120, 40, 50), (0.0, 0.0, 1.0, 1.0)),
        ((0, 130, 40, 50), (0.32, 0.0, 1.0, 1.0)),
        ((350, 250, 40, 50), (0.0, 0.0, 0.77, 0.73)),
        ((100, 0, 200, 300), (0.2, 0.27, 0.8, 0.73)),
    ],
)
def test_the_visible_part_is_stated(box: Box, visible: tuple[float, ...]) -> None:
    """The part of the square inside the frame, in shares of its side."""
    assert cut_context(frame(0), box).visible == pytest.approx(visible, abs=0.02)
