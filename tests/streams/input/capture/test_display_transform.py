"""Frames as a player shows them: the eight orientations of a display matrix, and square pixels."""

from __future__ import annotations

import itertools
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.input.capture.display_transform import DisplayTransform, FrameGeometry, Orientation
from streams.input.frame import Frame
from tests.support.reading import frames_of, reading

ONE = 1 << 16
QUADRANTS = {(-1, -1): 40, (1, -1): 90, (-1, 1): 150, (1, 1): 220}
"""Luma of the quadrants, by the signs of x to the right and y down."""


def quadrants(width: int, height: int) -> NDArray[np.uint8]:
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    for (x, y), luma in QUADRANTS.items():
        rows = slice(0, height // 2) if y < 0 else slice(height // 2, height)
        planes[rows, slice(0, width // 2) if x < 0 else slice(width // 2, width)] = luma
    return planes


def write(
    path: Path,
    *,
    size: tuple[int, int] = (320, 240),
    aspects: tuple[Fraction, ...] = (Fraction(1),),
    matrix: tuple[int, int, int, int] | None = None,
    colours: tuple[int, int] = (0, 2),
) -> Path:
    """Encode ten frames of quadrants for each pixel aspect; `matrix` is a, b, c, d of the display matrix."""
    clips = []
    for index, aspect in enumerate(aspects):
        part = path.with_name(f"part{index}{path.suffix}")
        with av.open(str(part), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"qp": "4"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.sample_aspect_ratio = aspect
            stream.codec_context.color_range, stream.codec_context.colorspace = colours
            if matrix is not None:
                a, b, c, d = (ONE * value for value in matrix)
                stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
            for number in range(10 * index, 10 * index + 10):
                image = av.VideoFrame.from_ndarray(quadrants(*size), format="yuv420p")
                image.pts, image.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
        clips.append(part.read_bytes())
    path.write_bytes(b"".join(clips))
    return path


def read(path: Path) -> list[Frame]:
    with reading(path) as (reader, _):
        return list(frames_of(reader))


def shown_quadrants(image: av.VideoFrame) -> dict[tuple[int, int], int]:
    """Return the mean luma of the four quadrants, rounded to that of the nearest in `QUADRANTS`."""
    luma = image.to_ndarray()[: image.height].astype(float)
    rows = {-1: slice(0, image.height // 2), 1: slice(image.height // 2, image.height)}
    columns = {-1: slice(0, image.width // 2), 1: slice(image.width // 2, image.width)}
    means = {(x, y): luma[rows[y], columns[x]].mean() for x, y in itertools.product((-1, 1), repeat=2)}
    return {key: min(QUADRANTS.values(), key=lambda known: abs(known - mean)) for key, mean in means.items()}


@pytest.mark.parametrize(
    "matrix",
    [
        *((a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)),
        *((0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)),
    ],
)
def test_every_orientation_is_undone(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """The corners of the decoded frame are shown where the display matrix sends them."""
    image = read(write(tmp_path / "phone.mp4", matrix=matrix))[0].image
    a, b, c, d = matrix
    assert (image.width, image.height) == ((320, 240) if a else (240, 320))
    assert image.format.name == "yuv420p"
    expected = {(a * x + c * y, b * x + d * y): luma for (x, y), luma in QUADRANTS.items()}
    assert shown_quadrants(image) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(
    ("aspect", "width"), [(Fraction(2), 640), (Fraction(4, 3), 426), (Fraction(8, 9), 284)]
)
def test_frames_are_scaled_to_square_pixels(
    tmp_path: Path, suffix: str, aspect: Fraction, width: int
) -> None:
    """The width follows the pixel aspect, whether the container states it or only the decoder."""
    image = read(write(tmp_path / f"tape{suffix}", aspects=(aspect,)))[0].image
    assert (image.width, image.height) == (width, 240)
    assert shown_quadrants(image) == QUADRANTS


def test_scaling_keeps_matrix_and_range(tmp_path: Path) -> None:
    """Colours must not change with the size: BT.709 in full range stays what it is."""
    image = read(write(tmp_path / "hdv.mp4", aspects=(Fraction(4, 3),), colours=(2, 1)))[0].image
    assert (int(image.color_range), int(image.colorspace)) == (2, 1)
    assert image.to_ndarray()[20, 20] == pytest.approx(QUADRANTS[-1, -1], abs=2)


def test_a_turned_frame_is_scaled_along_its_stored_width(tmp_path: Path) -> None:
    """The pixel aspect is that of the stored frame, before it is turned."""
    path = write(tmp_path / "phone.mp4", aspects=(Fraction(2),), matrix=(0, 1, -1, 0))
    image = read(path)[0].image
    assert (image.width, image.height) == (240, 640)


def test_a_change_of_the_pixel_aspect_begins_a_segment(tmp_path: Path) -> None:
    """A broadcast that changes from 4:3 to 16:9 keeps its number of pixels."""
    frames = read(write(tmp_path / "broadcast.ts", aspects=(Fraction(12, 11), Fraction(16, 11))))
    widths = {frame.segment: frame.width for frame in frames}
    assert list(widths.values()) == [350, 466]


@pytest.mark.parametrize(
    ("size", "aspect", "square"),
    [
        ((1440, 1080), Fraction(4, 3), (1920, 1080)),
        ((720, 480), Fraction(8, 9), (640, 480)),
        ((352, 576), Fraction(32, 11), (1024, 576)),
        ((4096, 2160), Fraction(2), (4096, 1080)),  # made lower, not larger
        ((1920, 1080), Fraction(136, 135), (1920, 1080)),  # cannot be seen
        ((640, 480), Fraction(100), (640, 480)),  # wrong metadata
        ((640, 480), Fraction(1, 100), (640, 480)),
        ((640, 480), Fraction(-4, 3), (640, 480)),
    ],
)
def test_sizes_with_square_pixels(size: tuple[int, int], aspect: Fraction, square: tuple[int, int]) -> None:
    """The width changes, up to a number of pixels; small and implausible deviations are ignored."""
    assert FrameGeometry(*size, Orientation.UPRIGHT, aspect).square_size == square


def test_a_palette_becomes_rgb() -> None:
    """A frame with a palette can be scaled too."""
    image, _ = DisplayTransform().apply(av.VideoFrame(320, 200, "pal8"), Fraction(5, 6))
    assert (image.width, image.height, image.format.name) == (266, 200, "rgb24")


def test_an_upright_frame_with_square_pixels_is_returned_itself() -> None:
    """Nothing is copied, and no reference is left that only the garbage collector would free."""
    image = av.VideoFrame(320, 240, "yuv420p")
    references = sys.getrefcount(image)
    assert DisplayTransform().apply(image, Fraction(1))[0] is image
    assert sys.getrefcount(image) == references
