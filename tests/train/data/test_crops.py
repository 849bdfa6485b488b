"""Tests of recropping."""

from __future__ import annotations

import numpy as np

from train.data.crops import recrop


def test_recrop_keeps_the_centre_at_the_scale_of_the_new_margin() -> None:
    """A crop of margin 2 recropped to margin 1 is its middle half; a tight crop is not padded."""
    frames = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    frames[:, 16:48, 16:48] = 200
    assert (recrop(frames, margin=2.0, to_margin=1.0, size=32) == 200).all()
    assert (recrop(frames, margin=2.0, to_margin=1.0, size=8) == 200).all()
    whole = recrop(frames, margin=1.0, to_margin=1.3, size=64)
    np.testing.assert_array_equal(whole, frames)
    assert recrop(frames, margin=1.3, to_margin=1.3, size=96).shape == (2, 96, 96, 3)
