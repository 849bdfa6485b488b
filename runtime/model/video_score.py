"""From the windows of each face to one score of a video, for `scan` and `evaluate` alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.model.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class FaceRecord:
    """Holds what a video showed of one face.

    Args:
        face: Its id.
        logits: The head's outputs, uncalibrated, one per window; empty if the face never filled `min_frames`.
        samples: In how many analysed frames it was seen.
        height: Its typical box height in pixels.
    """

    face: int
    logits: Sequence[float]
    samples: int
    height: float


def face_p_fake(face: FaceRecord, calibration: Calibration) -> float | None:
    """Score one face over all of its windows.

    Args:
        face: What was seen of it.
        calibration: The bundle's.

    Returns:
        The sigmoid of its calibrated mean logit, 0..1; None if it has no window.
    """
    if len(face.logits) == 0:
        return None
    return calibration.p_fake(math.fsum(face.logits) / len(face.logits))


def video_p_fake(faces: Iterable[FaceRecord], calibration: Calibration, *, samples: int) -> float | None:
    """Score a video by its most suspicious face among those that matter in it.

    A face matters if it is seen in at least half of the analysed frames and is at least half as high as the
    highest of these. Where no face is there for half the time (a cut video, a face that leaves and comes back
    under a new id), half of the longest-seen face's time takes the place of half of the video's.

    Args:
        faces: What was seen of each face.
        calibration: The bundle's.
        samples: The number of analysed frames of the video, with and without faces.

    Returns:
        The largest `p_fake`, 0..1; None if there is no face with a window.
    """
    scored = [face for face in faces if len(face.logits) > 0]
    if not scored:
        return None
    # Compared doubled, in integers: half of an odd count is no count.
    lasting = [face for face in scored if 2 * face.samples >= samples]
    if not lasting:
        longest = max(face.samples for face in scored)
        lasting = [face for face in scored if 2 * face.samples >= longest]
    # Only lasting faces set the scale: a huge false detection of a second must not push the real face out.
    tallest = max(face.height for face in lasting)
    scores = [face_p_fake(face, calibration) for face in lasting if 2 * face.height >= tallest]
    return max(score for score in scores if score is not None)
