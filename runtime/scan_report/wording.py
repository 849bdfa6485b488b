"""Verdict on a scanned video in words, with its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runtime.model.calibration import Calibration
from runtime.pipeline.scan_result import ScanResult

LIMITS = (
    "The score is an estimate by a statistical model and no proof. Real people are sometimes scored as fake, "
    "more often in dark rooms, with strong compression and with cameras unlike those of the training data. "
    "Some deepfakes are not detected. A face that was generated as a whole, edited sound and edited text are "
    "outside of what the model was made for. Do not decide about a person on this score alone."
)

_NO_SCORE = {
    "no_face": ("No face found", "No face was found in the video, so there is no score."),
    "no_motion": (
        "No score: still image",
        "The face does not move, or the frames do not change. A still image gives no temporal evidence.",
    ),
    "turned": (
        "No score: the face is not upright",
        "The face lies on its side or is upside down. The model knows upright faces only; rotate the video.",
    ),
    "too_short": (
        "No score: too short",
        "No face is in view for long enough; the model needs half a second without a cut.",
    ),
    "too_slow": ("No score: too few frames per second", "The frame rate is too low for the model."),
    "unreadable": ("Not readable", "The file cannot be read as a video."),
}
REASONS = {
    "no_motion": "the face does not move",
    "turned": "the face is turned on its side or upside down",
    "too_small": "the face is too small",
    "turned_away": "the face is turned away from the camera",
    "dark": "the face is too dark",
    "no_colour": "the image has no colour",
}


@dataclass(frozen=True, kw_only=True)
class VerdictText:
    """Verdict on a video in words.

    Args:
        state: `real`, `uncertain` or `fake`; `none` without a score.
        title: A few words.
        text: One or two sentences with the score and the thresholds.
    """

    state: Literal["real", "uncertain", "fake", "none"]
    title: str
    text: str


def verdict_text(result: ScanResult, calibration: Calibration) -> VerdictText:
    """Return the verdict on a video in words.

    Args:
        result: Result of the scan.
        calibration: Thresholds of the model.
    """
    if result.p_fake is None:
        title, text = _NO_SCORE.get(result.state, ("No score", "There is no score."))
        return VerdictText(state="none", title=title, text=result.error or text)
    if result.reason is not None:
        return VerdictText(
            state="uncertain",
            title="Cannot tell",
            text=f"In most of the video {reason_text(result.reason)}. The score is no evidence there "
            f"(p_fake {result.p_fake:.2f}).",
        )
    fake, real = calibration.threshold_fake, calibration.threshold_real
    score = f"p_fake is {result.p_fake:.2f} on a scale from 0 to 1"
    if (state := calibration.state(result.p_fake)) == "fake":
        text = f"{score}; from {fake:.2f} on, unmask reports a face as fake."
        return VerdictText(state=state, title="Probably a deepfake", text=text)
    if state == "real":
        text = f"{score}; up to {real:.2f}, unmask reports a face as real."
        return VerdictText(state=state, title="No sign of a deepfake", text=text)
    text = f"{score}, between the thresholds of real ({real:.2f}) and fake ({fake:.2f})."
    return VerdictText(state=state, title="Cannot tell", text=text)


def reason_text(reason: str) -> str:
    """Return the reason of an `uncertain` verdict in words."""
    return REASONS.get(reason, reason.replace("_", " "))
