"""Drawing of boxes, states and curves on frames. No I/O."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.messages import FaceState, RelativeBox, Thresholds, VerdictMessage

# RGB. Each state also has a word, for people who cannot tell the colours apart.
COLOURS: dict[FaceState, tuple[int, int, int]] = {
    "warming": (160, 160, 160),
    "real": (60, 190, 110),
    "uncertain": (235, 175, 50),
    "fake": (235, 70, 70),
    "stale": (160, 160, 160),
}
CURVE_S = 10.0
CURVE_SHARE = 0.18
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_box(rgb: NDArray[np.uint8], box: RelativeBox, state: FaceState) -> tuple[int, int]:
    """Draw the box of a face and return its top left corner in pixels.

    Args:
        rgb: RGB uint8 `(H, W, 3)`, contiguous; changed.
        box: `(x, y, w, h)` in shares of the frame.
        state: State of the face, for the colour.
    """
    height, width, _ = rgb.shape
    x, y, w, h = box
    corner = round(x * width), round(y * height)
    opposite = round((x + w) * width), round((y + h) * height)
    cv2.rectangle(rgb, corner, opposite, COLOURS[state], max(2, round(max(width, height) / 480)))
    return corner


class Overlay:
    """Annotations of one stream: boxes with state and score, and the curves of the last seconds.

    Args:
        thresholds: Thresholds on `p_fake`, drawn into the curve.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self._curves: dict[int, deque[tuple[float, float, FaceState]]] = {}

    def draw(self, rgb: NDArray[np.uint8], time_s: float, verdicts: Sequence[VerdictMessage]) -> None:
        """Draw the annotations of the next frame.

        Args:
            rgb: RGB uint8 `(H, W, 3)`, contiguous; changed.
            time_s: Time of the frame in seconds, not before that of the last one.
            verdicts: Verdicts on the faces in the frame.
        """
        for verdict in verdicts:
            if verdict.p_fake is not None:
                curve = self._curves.setdefault(verdict.face, deque())
                curve.append((time_s, verdict.p_fake, verdict.state))
        for face, curve in list(self._curves.items()):
            while curve and curve[0][0] < time_s - CURVE_S:
                curve.popleft()
            if not curve:
                del self._curves[face]
        self._draw_curves(rgb, time_s)
        scale = max(0.4, rgb.shape[0] / 900)
        for verdict in verdicts:
            x, y = draw_box(rgb, verdict.box, verdict.state)
            _label(rgb, _text(verdict), (x, y), COLOURS[verdict.state], scale)

    def _draw_curves(self, rgb: NDArray[np.uint8], time_s: float) -> None:
        height, width, _ = rgb.shape
        top, panel = height - round(height * CURVE_SHARE), round(height * CURVE_SHARE)
        rgb[top:] //= 3
        margin = max(2, panel // 12)

        def point(at_s: float, p_fake: float) -> tuple[int, int]:
            x = round((width - 1) * (1 - (time_s - at_s) / CURVE_S))
            return x, round(height - margin - p_fake * (panel - 2 * margin))

        for threshold, state in ((self.thresholds.real, "real"), (self.thresholds.fake, "fake")):
            level = point(time_s, threshold)[1]
            cv2.line(rgb, (0, level), (width - 1, level), COLOURS["real" if state == "real" else "fake"], 1)
        for curve in self._curves.values():
            samples = list(curve)
            for before, after in itertools.pairwise(samples):
                if after[0] - before[0] <= 1.0:  # no line across a gap
                    cv2.line(rgb, point(*before[:2]), point(*after[:2]), COLOURS[after[2]], 2, cv2.LINE_AA)


def _text(verdict: VerdictMessage) -> str:
    text = f"{verdict.face}: {verdict.state}"
    if verdict.reason is not None:
        return f"{text} ({verdict.reason.replace('_', ' ')})"
    return text if verdict.p_fake is None else f"{text} {verdict.p_fake:.2f}"


def _label(
    rgb: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float
) -> None:
    """Draw a text above a corner, or below it at the upper edge of the frame."""
    thickness = max(1, round(1.6 * scale))
    (w, h), base = cv2.getTextSize(text, _FONT, scale, thickness)
    pad = max(3, h // 3)
    x = min(max(corner[0], 0), max(0, rgb.shape[1] - w - 2 * pad))
    bottom = corner[1] if corner[1] >= h + base + 2 * pad else corner[1] + h + base + 2 * pad
    cv2.rectangle(rgb, (x, bottom - h - base - 2 * pad), (x + w + 2 * pad, bottom), colour, cv2.FILLED)
    cv2.putText(rgb, text, (x + pad, bottom - base - pad), _FONT, scale, (0, 0, 0), thickness, cv2.LINE_AA)
