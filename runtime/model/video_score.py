"""Score of a whole video from the windows of its faces; `scan`, `evaluate` and calibration share it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.model.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class FaceLogits:
    """Logits and presence of one face in a video.

    Args:
        face: Id of the face.
        logits: Uncalibrated logits, one per window; empty if the face never filled `min_frames`.
        samples: Number of analysed frames that contain the face.
        height: Typical height of its box in pixels.
    """

    face: int
    logits: Sequence[float]
    samples: int
    height: float


def face_p_fake(face: FaceLogits, calibration: Calibration) -> float | None:
    """Score one face over all of its windows.

    Args:
        face: Logits of the face.
        calibration: Calibration of the bundle.

    Returns:
        Calibrated probability of its mean logit, 0..1; None if it has no window.
    """
    if len(face.logits) == 0:
        return None
    return calibration.p_fake(math.fsum(face.logits) / len(face.logits))


def video_p_fake(faces: Iterable[FaceLogits], calibration: Calibration, *, samples: int) -> float | None:
    """Score a video by the highest `p_fake` among its main faces.

    A main face is in at least half of the analysed frames, and at least half as high as the highest of these
    faces. If no face is present half of the time (an edited video, or a face that leaves and returns with a
    new id), the limit is half of the frames of the face that is present longest.

    Args:
        faces: Logits and presence of each face.
        calibration: Calibration of the bundle.
        samples: Number of analysed frames of the video, with and without faces.

    Returns:
        The highest `p_fake`, 0..1; None if no face has a window.
    """
    scored = [face for face in faces if len(face.logits) > 0]
    if not scored:
        return None
    # Compared as integers, since half of an odd count is not one.
    lasting = [face for face in scored if 2 * face.samples >= samples]
    if not lasting:
        longest = max(face.samples for face in scored)
        lasting = [face for face in scored if 2 * face.samples >= longest]
    # Only these faces set the height limit, so that a brief, large false detection does not exclude the real
    # face.
    tallest = max(face.height for face in lasting)
    scores = [face_p_fake(face, calibration) for face in lasting if 2 * face.height >= tallest]
    return max(score for score in scores if score is not None)
