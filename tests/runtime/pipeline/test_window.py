"""Tests of the rolling window of one face."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline.window import FaceWindow
from streams.features.temporal_residuals import NUM_RESIDUALS, ResidualMeter
from tests.support.temporal import context_of, residuals_of

DIM = 4


def crop(value: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), value, np.uint8)


def feature(value: float) -> NDArray[np.float32]:
    return np.full(DIM, value, np.float32)


@pytest.mark.parametrize("capacity", [1, 2, 5, 16])
def test_features_are_the_newest_samples_oldest_first(capacity: int) -> None:
    """While filling and after several wraps, the view holds the last samples in order."""
    window = FaceWindow(capacity, DIM)
    for i in range(3 * capacity + 1):
        window.push(i / 8, crop(i), feature(i))
        kept = range(max(0, i + 1 - capacity), i + 1)
        features = window.window_features()
        assert features[:, 0].tolist() == list(kept)
        assert features.shape == (len(kept), DIM)
        assert features.flags.c_contiguous
        assert len(window) == len(kept)
        assert window.fill == len(kept) / capacity


def test_empty_window_has_no_features() -> None:
    """Before the first push the view has no rows."""
    window = FaceWindow(16, DIM)
    assert window.fill == 0.0
    assert window.window_features().shape == (0, DIM)


def test_clear_drops_all_samples() -> None:
    """After a clear no old feature is left, and media time may restart anywhere."""
    window = FaceWindow(4, DIM)
    for i in range(6):
        window.push(float(i), crop(i), feature(i))
    window.clear()
    assert len(window) == 0
    window.push(0.5, crop(9), feature(9))
    assert window.window_features().tolist() == [[9.0] * DIM]


def test_features_are_copied_in_and_read_only_out() -> None:
    """Neither the caller's array nor the returned view can change the buffered samples."""
    window = FaceWindow(4, DIM)
    given = feature(1)
    window.push(0.0, crop(1), given)
    given[:] = 7
    view = window.window_features()
    assert view.tolist() == [[1.0] * DIM]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 2


def test_a_sample_without_a_feature_repeats_the_newest() -> None:
    """It counts as a sample; a window cannot begin with one."""
    window = FaceWindow(3, DIM)
    with pytest.raises(ValueError, match="first sample of a window needs a feature"):
        window.push(0.0, crop(1), None)
    for i, given in enumerate((feature(1), None, feature(2), None, None)):
        window.push(float(i), crop(i), given)
    assert window.window_features()[:, 0].tolist() == [2, 2, 2]
    window.clear()
    with pytest.raises(ValueError, match="first sample"):
        window.push(9.0, crop(1), None)


def test_media_time_must_advance() -> None:
    """A repeated, earlier or undefined time is refused."""
    window = FaceWindow(4, DIM)
    window.push(1.0, crop(1), feature(1))
    for pts_s in (1.0, 0.9, float("nan")):
        with pytest.raises(ValueError, match="not after"):
            window.push(pts_s, crop(2), feature(2))
    assert len(window) == 1


def test_wrong_shapes_are_refused() -> None:
    """A feature of another size or a crop in another layout raises an error."""
    window = FaceWindow(4, DIM)
    with pytest.raises(ValueError, match="feature must have shape"):
        window.push(0.0, crop(1), np.zeros(DIM + 1, np.float32))
    with pytest.raises(ValueError, match="crop must be uint8"):
        window.push(0.0, np.zeros((3, 8, 8), np.uint8), feature(1))
    with pytest.raises(ValueError, match="at least 1"):
        FaceWindow(0, DIM)


def test_residuals_roll_with_the_window() -> None:
    """Residuals equal those of the whole clip, keep the newest samples, and restart after a clear."""
    crops = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    window = FaceWindow(4, DIM, ResidualMeter())
    for i, one in enumerate(crops):
        window.push(float(i), one, feature(i), context=context_of(one))
    assert window.window_residuals().shape == (4, NUM_RESIDUALS)
    np.testing.assert_array_equal(window.window_residuals(), residuals_of(crops)[-4:])
    window.clear()
    for i, one in enumerate(crops[:3]):
        window.push(float(i), one, feature(i), context=context_of(one))
    np.testing.assert_array_equal(window.window_residuals(), residuals_of(crops[:3]))
    with pytest.raises(ValueError, match="needs the context"):
        window.push(9.0, crops[0], feature(9))
    window.push(9.0, crops[0], None)
    assert np.isnan(window.window_residuals()[-1]).all(), "not measured"
    np.testing.assert_array_equal(window.window_features()[-1], feature(2))
