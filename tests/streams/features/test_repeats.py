"""Tests of the recognition of repeated frames."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streams.features.repeats import Repeats


def image(seed: int, format_name: str = "yuv420p", *, width: int = 34) -> av.VideoFrame:
    rgb = np.random.default_rng(seed).integers(0, 256, (18, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=format_name)


@pytest.mark.parametrize(
    "format_name", ["yuv420p", "yuvj420p", "nv12", "yuyv422", "rgb24", "gray", "yuv420p10le"]
)
def test_identical_frames_are_repeats_in_every_format(format_name: str) -> None:
    """The content decides, not the frame object and not the padding of its lines."""
    repeats = Repeats()
    # Converted once: FFmpeg's conversion of the same image to 10 bits does not always give the same result.
    content = {seed: image(seed, format_name).to_ndarray() for seed in (1, 2)}
    frames = [av.VideoFrame.from_ndarray(content[seed], format_name) for seed in (1, 1, 2, 2, 1)]
    found = [repeats.is_repeat(frame) for frame in frames]
    assert found == [False, True, False, True, False]


def test_one_changed_line_is_a_new_frame() -> None:
    """A change outside the lines that are compared first counts too."""
    repeats = Repeats()
    rgb = np.zeros((18, 34, 3), np.uint8)
    assert not repeats.is_repeat(av.VideoFrame.from_ndarray(rgb, "rgb24"))
    rgb[7, 3] = 1
    assert not repeats.is_repeat(av.VideoFrame.from_ndarray(rgb, "rgb24"))


def test_another_size_is_a_new_frame() -> None:
    """A flat frame of another width differs in size, although no byte differs."""
    repeats = Repeats()
    for width in (34, 36):
        assert not repeats.is_repeat(av.VideoFrame.from_ndarray(np.zeros((18, width, 3), np.uint8), "rgb24"))
