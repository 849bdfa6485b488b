"""Finder for streams whose faces do not matter."""

from __future__ import annotations

from streams.faces.finder import Face
from streams.input.frame import Frame


class CentredFaceFinder:
    """Finder that reports one face in the middle of every frame."""

    def find(self, frame: Frame) -> list[Face]:
        """Return the face."""
        width, height = frame.width / 4, frame.height / 2
        return [Face(id=1, box=(1.5 * width, height / 2, width, height), score=0.9, detected=True)]
