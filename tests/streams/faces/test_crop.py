"""Tests of the face crop: geometry, colours, and agreement of both conversion paths."""

from __future__ import annotations

from itertools import product

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from streams.faces.colour import PLANAR
from streams.faces.crop import Box, crop_array, crop_face, crop_luma, square

SIZE = 112
MARGIN = 1.3
BOXES: list[Box] = [
    (100, 50, 60, 80),  # about as large as the crop
    (160.3, 40.7, 120, 150),  # scaled down
    (50, 50, 30, 40),  # scaled up
    (-30, -20, 80, 100),  # over the top left corner
    (270, 180, 90, 120),  # over the bottom right corner
    (-500, 60, 60, 80),  # wholly outside
]
SWSCALE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def smooth_image(width: int, height: int) -> NDArray[np.uint8]:
    """Return a colourful image without edges, where the siting of chroma samples hardly matters."""
    seeds = np.random.default_rng(7).integers(60, 196, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(seeds, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def flat_image(format_name: str, y: int, u: int, v: int) -> av.VideoFrame:
    """Return a planar frame of one colour."""
    image = av.VideoFrame(64, 48, format_name)
    for plane, value in zip(image.planes, (y, u, v), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return image


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((99, 100, 80, 100), (74, 84, 130)),
        ((101, 100, 80, 100), (76, 84, 130)),
        ((0, 0, 10, 11), (-2, -2, 14)),
        ((5.25, 6.5, 1, 0.1), (4, 6, 2)),
    ],
)
def test_square_is_centred_and_even(box: Box, expected: tuple[int, int, int]) -> None:
    """The square has the centre of the box and a side of margin times its height, in even pixels."""
    assert square(box, MARGIN) == expected


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 10), (0, 0, 10, -1), (float("nan"), 0, 10, 10), (0, 0, 10, float("inf"))]
)
def test_an_empty_or_non_finite_box_raises(box: Box) -> None:
    """A box needs a positive, finite size."""
    with pytest.raises(ValueError, match="face box"):
        crop_array(np.zeros((10, 10, 3), np.uint8), box, size=SIZE, margin=MARGIN)


def test_a_crop_at_native_size_is_not_resampled() -> None:
    """A square as large as the crop keeps its pixel values."""
    rgb = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    crop = crop_array(rgb, (60, 30, 100, SIZE), size=SIZE, margin=1.0)
    assert np.array_equal(crop, rgb[30 : 30 + SIZE, 54 : 54 + SIZE])


def test_downscaling_uses_an_area_filter() -> None:
    """A fine checkerboard becomes its mean, where point sampling would give black or white."""
    checkerboard = np.indices((448, 448)).sum(axis=0) % 2 * 200
    crop = crop_array(
        np.repeat(checkerboard[..., None], 3, axis=2).astype(np.uint8),
        (0, 0, 448, 448),
        size=SIZE,
        margin=1.0,
    )
    assert np.all(crop == 100)


def test_upscaling_interpolates_with_pixels_outside_the_square() -> None:
    """An upscaled ramp stays linear up to the border of the crop."""
    ramp = np.broadcast_to(np.arange(0, 200, dtype=np.uint8)[None, :, None], (200, 200, 3))
    crop = crop_array(np.ascontiguousarray(ramp), (72, 72, 56, 56), size=SIZE, margin=1.0)
    expected = 72 + (np.arange(SIZE) + 0.5) / 2 - 0.5
    assert np.abs(crop[50, :, 0] - expected).max() <= 0.5


def test_pixels_outside_the_frame_replicate_its_edge() -> None:
    """A crop over the top left corner replicates the edge there; a crop far outside shows only the edge."""
    rgb = smooth_image(200, 120)
    crop = crop_array(rgb, (-SIZE // 2, -SIZE // 2, SIZE, SIZE), size=SIZE, margin=1.0)
    half = SIZE // 2
    assert np.array_equal(crop[half:, half:], rgb[:half, :half])
    assert np.all(crop[:half, :half] == rgb[0, 0])
    assert np.array_equal(crop[:half, half:], np.broadcast_to(rgb[0, :half], (half, half, 3)))
    away = crop_array(rgb, (-5000, 5000, SIZE, SIZE), size=SIZE, margin=1.0)
    assert np.all(away == rgb[-1, 0])


@pytest.mark.parametrize(
    ("format_name", "colorspace", "color_range", "yuv"),
    [
        ("yuv420p", 2, 0, (81, 90, 240)),  # unset: BT.601, limited range
        ("yuv420p", 5, 1, (81, 90, 240)),
        ("yuv422p", 6, 1, (81, 90, 240)),
        ("yuv420p", 1, 1, (63, 102, 240)),  # BT.709
        ("yuv420p", 9, 1, (74, 97, 240)),  # BT.2020
        ("yuvj420p", 2, 0, (76, 85, 255)),  # the format implies full range
        ("yuvj444p", 5, 2, (76, 85, 255)),
        ("yuv444p", 1, 2, (54, 99, 255)),
    ],
)
def test_pure_red_is_decoded_under_each_matrix_and_range(
    format_name: str, colorspace: int, color_range: int, yuv: tuple[int, int, int]
) -> None:
    """The YUV values of pure red, as the standards define them, become pure red."""
    image = flat_image(format_name, *yuv)
    image.colorspace, image.color_range = colorspace, color_range
    crop = crop_face(image, (10, 10, 20, 20), size=SIZE, margin=MARGIN)
    assert np.abs(crop.astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize("format_name", PLANAR)
@pytest.mark.parametrize(("colorspace", "color_range"), list(product((2, 1, 6, 9), (0, 1, 2))))
def test_both_conversion_paths_agree(format_name: str, colorspace: int, color_range: int) -> None:
    """Converting only the square differs by at most two grey levels from converting all of it."""
    rgb = smooth_image(334, 248)
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=format_name)
    assert image.planes[0].line_size != image.width, "the size must give padded lines"
    image.colorspace, image.color_range = colorspace, color_range
    whole = np.asarray(image.reformat(format="rgb24", interpolation=SWSCALE).to_ndarray(), np.uint8)
    for box in BOXES:
        fast = crop_face(image, box, size=SIZE, margin=MARGIN)
        slow = crop_array(whole, box, size=SIZE, margin=MARGIN)
        assert np.abs(fast.astype(int) - slow).max() <= 2, box


@pytest.mark.parametrize(
    "format_name", ["yuv420p", "yuv422p", "nv12", "yuyv422", "yuv420p10le", "gbrp", "bgr24"]
)
@pytest.mark.parametrize(("width", "height"), [(334, 248), (333, 247), (640, 360)])
def test_every_pixel_format_gives_the_same_crop(format_name: str, width: int, height: int) -> None:
    """Packed, semi-planar, 10-bit and RGB frames, also of odd sizes, give the crop of the RGB original."""
    rgb = smooth_image(width, height)
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=format_name, interpolation="AREA")
    for box in BOXES:
        crop = crop_face(image, box, size=SIZE, margin=MARGIN)
        expected = crop_array(rgb, box, size=SIZE, margin=MARGIN)
        assert np.abs(crop.astype(int) - expected).max() <= 6, box  # eight bits of chroma at half the size


@pytest.mark.parametrize("format_name", ["yuv420p", "nv12", "yuv420p10le"])
def test_an_unsupported_matrix_is_read_as_bt601(format_name: str) -> None:
    """A frame tagged YCgCo, which swscale refuses, is cropped on every path."""
    image = flat_image("yuv420p", 81, 90, 240).reformat(format=format_name)
    image.colorspace = 8
    crop = crop_face(image, (10, 10, 20, 20), size=SIZE, margin=MARGIN)
    assert np.abs(crop.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("format_name", ["yuv420p", "rgb24"])
def test_out_receives_the_crop(format_name: str) -> None:
    """The crop is written to `out`, for instance one row of a batch."""
    image = av.VideoFrame.from_ndarray(smooth_image(320, 240), format="rgb24").reformat(format=format_name)
    batch = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    returned = crop_face(image, BOXES[0], size=SIZE, margin=MARGIN, out=batch[1])
    assert np.shares_memory(returned, batch)
    assert np.array_equal(batch[1], crop_face(image, BOXES[0], size=SIZE, margin=MARGIN))
    assert not batch[0].any()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuyv422", "uyvy422"])
def test_luma_has_the_geometry_of_the_face(name: str, box: Box) -> None:
    """It is the crop of the frame's luma, up to the faster scaling."""
    image = av.VideoFrame.from_ndarray(smooth_image(320, 240), format="rgb24").reformat(format=name)
    plane = np.asarray(image.reformat(format="yuv444p").to_ndarray()[0], np.uint8)
    grey = np.repeat(plane[..., None], 3, axis=2)
    expected = crop_array(grey, box, size=SIZE, margin=MARGIN)[..., 0]
    luma = crop_luma(image, box, size=SIZE, margin=MARGIN)
    assert luma.shape == (SIZE, SIZE)
    assert np.abs(luma.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["rgb24", "bgr24", "rgb0", "rgba", "bgr0", "bgra", "gbrp"])
def test_luma_of_screens_is_that_of_bt601(name: str, box: Box) -> None:
    """RGB frames, in any order of the channels, have the luma of BT.601 in the full range."""
    image = av.VideoFrame.from_ndarray(smooth_image(320, 240), format="rgb24")
    rgb = crop_array(np.asarray(image.to_ndarray(), np.uint8), box, size=SIZE, margin=MARGIN)
    luma = crop_luma(image.reformat(format=name), box, size=SIZE, margin=MARGIN)
    assert np.abs(luma - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 2


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["bgr24", "rgb0", "rgba", "bgr0", "bgra"])
def test_the_order_of_the_channels_does_not_matter(name: str, box: Box) -> None:
    """The same RGB frame in another packed format has the same crop."""
    image = av.VideoFrame.from_ndarray(smooth_image(320, 240), format="rgb24")
    crop = crop_face(image.reformat(format=name), box, size=SIZE, margin=MARGIN)
    np.testing.assert_array_equal(crop, crop_face(image, box, size=SIZE, margin=MARGIN))
