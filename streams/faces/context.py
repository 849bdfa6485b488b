"""Crops of a face with its surroundings, for temporal residuals."""

from __future__ import annotations

from streams.faces.crop import Box, crop_face, crop_luma, square
from streams.features import frame_changes
from streams.features.face_regions import MARGIN
from streams.features.temporal_residuals import SIZE, FaceContext
from streams.input.frame import Frame


def cut_context(frame: Frame, box: Box) -> FaceContext:
    """Cut a face with its surroundings from a sample and from the frames before it.

    Args:
        frame: The sample.
        box: Face box in pixels of the frame.

    Raises:
        ValueError: The box is empty or not finite.
    """
    x, y, side = square(box, MARGIN)
    return FaceContext(
        current=crop_face(frame.image, box, size=SIZE, margin=MARGIN),
        previous=crop_face(frame.earlier[-1], box, size=SIZE, margin=MARGIN) if frame.earlier else None,
        history=tuple(
            crop_luma(image, box, size=frame_changes.SIZE, margin=MARGIN)
            for image in (*frame.earlier, frame.image)
        ),
        visible=(
            max(0.0, -x / side),
            max(0.0, -y / side),
            min(1.0, (frame.width - x) / side),
            min(1.0, (frame.height - y) / side),
        ),
    )
