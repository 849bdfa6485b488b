"""Transformation of decoded frames to how a player shows them: upright, not mirrored, with square pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import cast

import av
import av.filter
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import Interpolation, VideoReformatter

__all__ = ["DisplayTransform", "FrameGeometry", "Orientation", "PixelAspect"]

# `VideoFrame.side_data` makes a reference cycle: frames would fill the memory until they are collected.
_side_data = cast("Callable[[av.VideoFrame], SideDataContainer]", SideDataContainer)

# Field-wise video has 2 and anamorphic PAL in half the width 2.9; what is beyond comes from wrong metadata. A
# deviation of 2 % cannot be seen, and is not worth the time of scaling.
_MAX_ASPECT, _MIN_DEVIATION = Fraction(4), Fraction(2, 100)
# Larger frames are made lower instead of wider, so that a small file cannot fill the memory.
_MAX_PIXELS = 3840 * 2160


class Orientation(Enum):
    """Filters of FFmpeg that turn a frame upright, one member for each of the eight orientations."""

    UPRIGHT = ()
    MIRRORED = (("hflip", None),)
    UPSIDE_DOWN_MIRRORED = (("vflip", None),)
    UPSIDE_DOWN = (("hflip", None), ("vflip", None))
    TURNED_LEFT = (("transpose", "clock"),)
    TURNED_RIGHT = (("transpose", "cclock"),)
    TURNED_LEFT_MIRRORED = (("transpose", "cclock_flip"),)
    TURNED_RIGHT_MIRRORED = (("transpose", "clock_flip"),)

    @classmethod
    def of(cls, image: av.VideoFrame) -> Orientation:
        """Return the orientation in a frame's display matrix; upright without one, or if it is oblique."""
        matrix = _side_data(image).get(Type.DISPLAYMATRIX)
        if matrix is None:
            return cls.UPRIGHT
        # A pixel at (x, y) is shown at (a x + c y, b x + d y), with x to the right and y down.
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
        if not (a or d):
            return _TRANSPOSED[b > 0, c > 0]
        return cls.UPRIGHT if b or c else _STRAIGHT[a > 0, d > 0]


_STRAIGHT = {
    (True, True): Orientation.UPRIGHT,
    (False, True): Orientation.MIRRORED,
    (True, False): Orientation.UPSIDE_DOWN_MIRRORED,
    (False, False): Orientation.UPSIDE_DOWN,
}
_TRANSPOSED = {
    (True, False): Orientation.TURNED_LEFT,
    (False, True): Orientation.TURNED_RIGHT,
    (True, True): Orientation.TURNED_LEFT_MIRRORED,
    (False, False): Orientation.TURNED_RIGHT_MIRRORED,
}


class PixelAspect:
    """Width of a stream's pixels divided by their height: of the container, else of the decoder.

    Args:
        stream: Opened video stream, of which nothing is decoded yet.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._context = stream.codec_context
        guessed = stream.sample_aspect_ratio
        self._stated = guessed if guessed != self._context.sample_aspect_ratio else None

    def current(self) -> Fraction:
        """Return the value for the frames decoded last: a broadcast may change it; 1 if it is unknown."""
        return self._stated or self._context.sample_aspect_ratio or Fraction(1)


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Size, orientation and pixel aspect of a decoded frame, before its transformation."""

    width: int
    height: int
    orientation: Orientation
    pixel_aspect: Fraction

    @property
    def square_size(self) -> tuple[int, int]:
        """Return width and height with square pixels, not turned yet; implausible aspects are ignored."""
        width, height, aspect = self.width, self.height, self.pixel_aspect
        if aspect == 1 or not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT or abs(aspect - 1) <= _MIN_DEVIATION:
            return width, height
        # Lines are kept where possible: those of an interlaced frame must not be mixed.
        if width * height * aspect <= _MAX_PIXELS:
            return _even(width * aspect), height
        return width, _even(height / aspect)


class DisplayTransform:
    """Transformation of decoded frames to how a player shows them; the pixel format stays the same.

    Frames are turned and mirrored by the display matrix in their metadata, and scaled to square pixels.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._graph: av.filter.Graph | None = None
        self._graph_input: tuple[Orientation, int, int, str] | None = None

    def apply(self, image: av.VideoFrame, pixel_aspect: Fraction) -> tuple[av.VideoFrame, FrameGeometry]:
        """Transform a decoded frame.

        Args:
            image: The frame.
            pixel_aspect: Width of its pixels divided by their height.

        Returns:
            The frame as a player shows it, the same object if nothing is to be done; and its geometry before.
        """
        geometry = FrameGeometry(image.width, image.height, Orientation.of(image), pixel_aspect)
        return self._turn(self._scale(image, geometry), geometry.orientation), geometry

    def _scale(self, image: av.VideoFrame, geometry: FrameGeometry) -> av.VideoFrame:
        width, height = geometry.square_size
        if (width, height) == (image.width, image.height):
            return image
        # Not the filter `scale`, which converts to another colour matrix and range.
        return self._reformatter.reformat(
            image,
            width,
            height,
            # Palettes cannot be interpolated.
            format="rgb24" if image.format.has_palette else None,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )

    def _turn(self, image: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
        if orientation is Orientation.UPRIGHT:
            return image
        graph_input = (orientation, image.width, image.height, image.format.name)
        if self._graph is None or graph_input != self._graph_input:
            self._graph, self._graph_input = _graph(orientation, image), graph_input
        self._graph.push(image)
        return cast("av.VideoFrame", self._graph.pull())


def _graph(orientation: Orientation, image: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    node = graph.add_buffer(
        width=image.width, height=image.height, format=image.format, time_base=image.time_base
    )
    for name, argument in orientation.value:
        turned = graph.add(name, argument)
        node.link_to(turned)
        node = turned
    node.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _even(length: Fraction) -> int:
    """Return the nearest even length, which video encoders need."""
    return max(2, 2 * round(length / 2))
