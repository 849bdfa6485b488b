"""Tests of recropping and of JPEG encoding."""

from __future__ import annotations

import numpy as np

from train.data.crops import decode_image, encode_jpeg, recrop


def test_recrop_keeps_the_centre_at_the_scale_of_the_new_margin() -> None:
    """A crop of margin 2 recropped to margin 1 is its middle half; a tight crop is not padded."""
    frames = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    frames[:, 16:48, 16:48] = 200
    assert (recrop(frames, margin=2.0, to_margin=1.0, size=32) == 200).all()
    assert (recrop(frames, margin=2.0, to_margin=1.0, size=8) == 200).all()
    whole = recrop(frames, margin=1.0, to_margin=1.3, size=64)
    np.testing.assert_array_equal(whole, frames)
    assert recrop(frames, margin=1.3, to_margin=1.3, size=96).shape == (2, 96, 96, 3)


def test_jpeg_keeps_colours_at_full_resolution_by_default() -> None:
    """Columns of red and blue, one pixel wide, survive 4:4:4 and not 4:2:0."""
    crop = np.zeros((32, 32, 3), dtype=np.uint8)
    crop[:, ::2, 0] = crop[:, 1::2, 2] = 255

    def error(data: bytes) -> float:
        decoded = decode_image(data)
        assert decoded is not None
        return float(np.abs(decoded.astype(int) - crop).mean())

    assert error(encode_jpeg(crop, 95)) < 8
    assert error(encode_jpeg(crop, 95, halve_chroma=True)) > 40


def test_other_bytes_are_no_image() -> None:
    """Decoding bytes that are no image returns None."""
    assert decode_image(b"text") is None
