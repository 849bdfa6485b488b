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
    """

    face: int
    logits: Sequence[float]
    samples: int


def scored_windows(samples: int, *, window: int, min_frames: int) -> list[tuple[int, int]]:
    """Return the windows of a face that are scored: one that ends with each sample, as long as possible.

    Args:
        samples: Number of consecutive samples of the face.
        window: Largest number of samples in a window.
        min_frames: Smallest number of samples in a window.

    Returns:
        First sample of each window, and the sample after its last one; none if there are too few samples.
    """
    return [(max(0, end - window), end) for end in range(min_frames, samples + 1)]


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


def counting_faces(faces: Iterable[FaceLogits]) -> list[FaceLogits]:
    """Return the faces that count for the score of a video: those in view for long enough.

    That is half as long as the face in view longest, of the faces with a window. A shorter track is often a
    false detection or a passer-by. The size does not matter: a forgery may be shown small, beside others.

    Args:
        faces: Logits and presence of each face.
    """
    scored = [face for face in faces if len(face.logits) > 0]
    longest = max((face.samples for face in scored), default=0)
    # Compared as integers, since half of an odd count is not one.
    return [face for face in scored if 2 * face.samples >= longest]


def video_p_fake(faces: Iterable[FaceLogits], calibration: Calibration) -> float | None:
    """Score a video by the highest `p_fake` among the faces that count; see `counting_faces`.

    Args:
        faces: Logits and presence of each face.
        calibration: Calibration of the bundle.

    Returns:
        The highest `p_fake`, 0..1; None if no face has a window.
    """
    scores = [face_p_fake(face, calibration) for face in counting_faces(faces)]
    return max((score for score in scores if score is not None), default=None)
