"""Crops of a face with its surroundings, for temporal residuals."""

from __future__ import annotations

import numpy as np

from streams.faces.crop import Box, crop_face, crop_luma, square
from streams.features import frame_changes
from streams.features.face_regions import MARGIN
from streams.features.repeat_changes import find_repeats
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
    visible = (
        max(0.0, -x / side),
        max(0.0, -y / side),
        min(1.0, (frame.width - x) / side),
        min(1.0, (frame.height - y) / side),
    )
    history = tuple(
        crop_luma(image, box, size=frame_changes.SIZE, margin=MARGIN)
        for image in (*frame.earlier, frame.image)
    )
    # The last frames may repeat one picture; the sample is compared with the picture before that.
    new = np.flatnonzero(~find_repeats(history, visible).picture)
    return FaceContext(
        current=crop_face(frame.image, box, size=SIZE, margin=MARGIN),
        previous=crop_face(frame.earlier[new[-1]], box, size=SIZE, margin=MARGIN) if len(new) else None,
        history=history,
        visible=visible,
    )
