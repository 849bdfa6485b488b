"""The rolling buffer of one face."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline.window import FaceWindow
from streams.features.temporal_residuals import RESIDUALS, ResidualMeter, clip_residuals

DIM = 4


def crop(value: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), value, np.uint8)


def feature(value: float) -> NDArray[np.float32]:
    return np.full(DIM, value, np.float32)


@pytest.mark.parametrize("window", [1, 2, 5, 16])
def test_the_newest_window_comes_out_oldest_first(window: int) -> None:
    """At every fill, and long after the ring has gone round, the view is the last samples in order."""
    buffer = FaceWindow(window, DIM)
    for i in range(3 * window + 1):
        buffer.push(i / 8, crop(i), feature(i))
        kept = range(max(0, i + 1 - window), i + 1)
        features = buffer.window_features()
        assert features[:, 0].tolist() == list(kept)
        assert features.shape == (len(kept), DIM)
        assert features.flags.c_contiguous
        assert [c[0, 0, 0] for c in buffer.crops()] == list(kept)
        assert buffer.pts_s == tuple(k / 8 for k in kept)
        assert buffer.newest_pts_s == i / 8
        assert buffer.fill == len(kept) / window


def test_an_empty_buffer_has_no_time_and_no_rows() -> None:
    """Before the first sample there is nothing to judge."""
    buffer = FaceWindow(16, DIM)
    assert buffer.newest_pts_s is None
    assert buffer.fill == 0.0
    assert buffer.window_features().shape == (0, DIM)


def test_clear_leaves_nothing_behind() -> None:
    """After a gap no old feature can reach the head, and time may start anywhere."""
    buffer = FaceWindow(4, DIM)
    for i in range(6):
        buffer.push(float(i), crop(i), feature(i))
    buffer.clear()
    assert len(buffer) == 0
    buffer.push(0.5, crop(9), feature(9))
    assert buffer.window_features().tolist() == [[9.0] * DIM]
    assert buffer.pts_s == (0.5,)


def test_features_are_copied_in_and_read_only_out() -> None:
    """Neither the caller's array nor the view can change what was seen."""
    buffer = FaceWindow(4, DIM)
    given = feature(1)
    buffer.push(0.0, crop(1), given)
    given[:] = 7
    view = buffer.window_features()
    assert view.tolist() == [[1.0] * DIM]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 2


def test_time_must_advance() -> None:
    """The same frame twice is not two samples."""
    buffer = FaceWindow(4, DIM)
    buffer.push(1.0, crop(1), feature(1))
    for pts_s in (1.0, 0.9, float("nan")):
        with pytest.raises(ValueError, match="not after"):
            buffer.push(pts_s, crop(2), feature(2))
    assert len(buffer) == 1


def test_wrong_shapes_are_refused() -> None:
    """A feature of another model, or a crop in another layout, does not enter."""
    buffer = FaceWindow(4, DIM)
    with pytest.raises(ValueError, match="feature must have shape"):
        buffer.push(0.0, crop(1), np.zeros(DIM + 1, np.float32))
    with pytest.raises(ValueError, match="crop must be uint8"):
        buffer.push(0.0, np.zeros((3, 8, 8), np.uint8), feature(1))
    with pytest.raises(ValueError, match="at least 1"):
        FaceWindow(0, DIM)


def test_flicker_is_measured_in_the_order_of_the_crops() -> None:
    """It rolls with the window, comes out as if measured at once, and starts anew after a gap."""
    crops = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    buffer = FaceWindow(4, DIM, ResidualMeter(1.3))
    for i, one in enumerate(crops):
        buffer.push(float(i), one, feature(i))
    assert buffer.window_residuals().shape == (4, RESIDUALS)
    np.testing.assert_array_equal(buffer.window_residuals(), clip_residuals(crops, 1.3)[-4:])
    buffer.clear()
    for i, one in enumerate(crops[:3]):
        buffer.push(float(i), one, feature(i))
    np.testing.assert_array_equal(buffer.window_residuals(), clip_residuals(crops[:3], 1.3))
