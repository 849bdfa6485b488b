"""Rotation of frames by the orientation in their metadata."""

from __future__ import annotations

from typing import cast

import av
import av.filter

__all__ = ["DisplayTransform"]

# Filters that FFmpeg's own player applies for each counter-clockwise rotation in the metadata.
_FILTERS = {
    90: (("transpose", "cclock"),),
    180: (("hflip", None), ("vflip", None)),
    270: (("transpose", "clock"),),
}


class DisplayTransform:
    """Filter that turns frames upright by the rotation in their metadata; the pixel format stays the same."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._graph_input: tuple[int, int, int, str] | None = None

    def apply(self, image: av.VideoFrame) -> av.VideoFrame:
        """Return a decoded frame upright; the same object if it already is."""
        angle = image.rotation % 360
        if angle not in _FILTERS:
            return image
        graph_input = (angle, image.width, image.height, image.format.name)
        if self._graph is None or graph_input != self._graph_input:
            self._graph, self._graph_input = _graph(angle, image), graph_input
        self._graph.push(image)
        return cast("av.VideoFrame", self._graph.pull())


def _graph(angle: int, image: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    node = graph.add_buffer(
        width=image.width, height=image.height, format=image.format, time_base=image.time_base
    )
    for name, argument in _FILTERS[angle]:
        rotated = graph.add(name, argument)
        node.link_to(rotated)
        node = rotated
    node.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
