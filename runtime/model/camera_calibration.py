"""Thresholds for one camera, from a stretch in which everyone in front of it is known to be genuine.

    thresholds = camera_thresholds(scores, calibration, seconds=60)

A camera, its codec, its light and the person before it shift all scores of a stream. Live face swaps score
higher than the untouched stream that they were made of, but often lower than another camera's real people.
Both thresholds are therefore moved by the same distance in log-odds, which is the same as an offset of the
logits; `p_fake` stays comparable between cameras. They are only ever raised: a camera with low scores is no
reason to suspect it more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import CameraNotCalibrated
from runtime.messages import Thresholds
from runtime.model.calibration import Calibration

MIN_FACE_S = 10.0
"""Shortest time with a scored face, in seconds, from which thresholds are derived."""
MIN_WATCHED_S = 15.0
"""Shortest time to watch, because opening a source and filling the first window take up to five seconds."""
SHARE = 0.8
"""Share of the distance that is corrected, because one stretch is not all that a camera will show."""
MAX_SHIFT = 2.5
"""Largest shift in log-odds. Beyond it hardly any fake would be detected."""


@dataclass(frozen=True, kw_only=True)
class CameraThresholds:
    """Thresholds for one camera.

    Args:
        thresholds: The thresholds on `p_fake`, rounded to three decimals.
        shift: Their distance from the model's, in log-odds, at least 0.
        mean_p_fake: `p_fake` of the mean log-odds of the stretch, 0..1.
    """

    thresholds: Thresholds
    shift: float
    mean_p_fake: float


def camera_thresholds(
    scores: Sequence[float], calibration: Calibration, *, seconds: float
) -> CameraThresholds:
    """Return thresholds with which a camera like that of a genuine stretch rarely shows `fake`.

    Args:
        scores: `p_fake` of every verdict in the stretch, 0..1; those of several faces all count.
        calibration: Calibration of the model.
        seconds: Time with at least one scored face.

    Raises:
        CameraNotCalibrated: There are too few verdicts, or the scores are too high for a genuine camera.
    """
    if seconds < MIN_FACE_S:
        raise CameraNotCalibrated(
            f"a face was scored for {math.floor(10 * seconds) / 10:.1f} s only, {MIN_FACE_S:g} s are needed",
            "sit in front of the camera as in a call, or give more --seconds",
        )
    mean = math.fsum(_log_odds(score) for score in scores) / len(scores)
    shift = max(0.0, SHARE * (mean - _log_odds(calibration.threshold_real)))
    if shift > MAX_SHIFT:
        raise CameraNotCalibrated(
            f"the scores are too high for a genuine camera (mean p_fake {_probability(mean):.2f})",
            "improve the light and the bit rate, and make sure that no filter or forgery is active",
        )
    return CameraThresholds(
        thresholds=Thresholds(
            real=round(_probability(_log_odds(calibration.threshold_real) + shift), 3),
            fake=round(_probability(_log_odds(calibration.threshold_fake) + shift), 3),
        ),
        shift=shift,
        mean_p_fake=_probability(mean),
    )


def _log_odds(probability: float) -> float:
    limited = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(limited / (1 - limited))


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
