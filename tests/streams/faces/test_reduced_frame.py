"""Tests of reduced frames: sizes, colours and content in every pixel format, and halves made once."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.faces import reduced_frame
from streams.faces.reduced_frame import ReducedFrame

SIZES = [(1280, 720), (1920, 1080), (854, 480), (641, 361), (100, 50), (33, 1)]


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """Return an RGB image whose colours change slowly."""
    coarse = np.random.default_rng(2).integers(20, 236, (5, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "rgb24", "bgr0", "gray"]
)
@pytest.mark.parametrize("size", SIZES)
def test_a_reduced_frame_shows_the_same_image(name: str, size: tuple[int, int]) -> None:
    """Grey and RGB have the requested size, and their pixels are near those of an area filter."""
    width, height = size
    rgb = smooth(width, height)
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)
    expected = image.to_ndarray(format="rgb24")
    reduced = ReducedFrame(image)
    for long_side in (320, 640):
        scale = min(1, long_side / max(size))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        assert reduced.size(long_side) == shape[::-1]
        area = cv2.resize(expected, shape[::-1], interpolation=cv2.INTER_AREA).reshape(*shape, 3).astype(int)
        actual = reduced.rgb(long_side)
        assert (actual.shape, actual.dtype) == ((*shape, 3), np.dtype(np.uint8))
        assert np.abs(actual - area).mean() < 4
        grey = reduced.grey(long_side)
        assert (grey.shape, grey.dtype) == (shape, np.dtype(np.uint8))
        luma = cv2.cvtColor(area.astype(np.uint8), cv2.COLOR_RGB2GRAY).reshape(shape)
        # The range of the luma may be limited.
        if min(shape) > 1:
            assert np.corrcoef(grey.ravel(), luma.ravel())[0, 1] > 0.99


def test_fine_detail_is_averaged_not_skipped() -> None:
    """A checkerboard of single pixels becomes grey."""
    board = np.indices((720, 1280)).sum(0) % 2 * np.uint8(255)
    reduced = ReducedFrame(
        av.VideoFrame.from_ndarray(board.astype(np.uint8), format="gray").reformat(format="yuvj420p")
    )
    assert np.ptp(reduced.grey(320)) <= 1
    assert reduced.grey(320).mean() == pytest.approx(127.5, abs=1.5)


def test_each_half_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey at 320 and RGB at 640 and 320 pixels share the halves of the luma."""
    made: list[tuple[int, int]] = []
    resized = reduced_frame._resized

    def counted(plane: NDArray[np.uint8], size: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
        made.append(size)
        return resized(plane, size, interpolation)

    monkeypatch.setattr(reduced_frame, "_resized", counted)
    reduced = ReducedFrame(av.VideoFrame.from_ndarray(smooth(1280, 720)).reformat(format="yuv420p"))
    reduced.grey(320)
    assert made == [(640, 360), (320, 180)]
    reduced.rgb(640)
    assert len(made) == 2, "the chroma of a 720p frame has 640 pixels"
    reduced.rgb(320)
    assert made[2:] == [(320, 180)] * 2
