"""Turns the pictures of a camera that was held sideways upright."""

from __future__ import annotations

from typing import cast

import av
import av.filter

__all__ = ["UprightRotation"]

# What FFmpeg's own player does for each counter-clockwise rotation its metadata asks for.
_FILTERS = {
    90: (("transpose", "cclock"),),
    180: (("hflip", None), ("vflip", None)),
    270: (("transpose", "clock"),),
}


class UprightRotation:
    """Applies the rotation that a phone notes beside the picture; keeps the pixel format."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._made_for: tuple[int, int, int, str] | None = None

    def turn(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Turn one picture.

        Args:
            picture: Any decoded picture.

        Returns:
            The picture upright; the same object if it already is.
        """
        angle = picture.rotation % 360
        if angle not in _FILTERS:
            return picture
        shape = (angle, picture.width, picture.height, picture.format.name)
        if self._graph is None or shape != self._made_for:
            self._graph, self._made_for = _graph(angle, picture), shape
        self._graph.push(picture)
        return cast("av.VideoFrame", self._graph.pull())


def _graph(angle: int, picture: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    node = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base,
    )
    for name, argument in _FILTERS[angle]:
        turned = graph.add(name, argument)
        node.link_to(turned)
        node = turned
    node.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
