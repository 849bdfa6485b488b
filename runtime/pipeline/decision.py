"""Decisions on verdicts: which samples get one, and the state of a face from its calibrated scores.

No I/O and no clock: scores and times are passed in, decisions are returned.

    decision = FaceDecision(calibration, min_fill=0.3125, expiry_s=0.625)
    state = decision.update(p_fake, window_fill, now)
"""

from __future__ import annotations

from runtime.messages import FaceState, UncertainReason
from runtime.model.calibration import Calibration


class FaceDecision:
    """State of one face over time.

    Hysteresis keeps a score near a threshold from changing the state back and forth. All times are seconds of
    one clock of the caller's choice.

    Args:
        calibration: Thresholds and hysteresis of the model.
        min_fill: Share of the window below which the face is `warming`, 0..1.
        expiry_s: Age in seconds of the last sample above which the face is `stale`.

    Raises:
        ValueError: `min_fill` is outside 0..1 or `expiry_s` is not positive.
    """

    def __init__(self, calibration: Calibration, *, min_fill: float, expiry_s: float) -> None:
        if not 0 <= min_fill <= 1:
            raise ValueError(f"min_fill must be within 0..1, not {min_fill}")
        if not expiry_s > 0:
            raise ValueError(f"expiry_s must be above 0, not {expiry_s}")
        self.calibration = calibration
        self.min_fill = min_fill
        self.expiry_s = expiry_s
        self._state: FaceState = "warming"
        self._sampled_at: float | None = None

    def update(
        self,
        p_fake: float | None,
        window_fill: float,
        now: float,
        *,
        reason: UncertainReason | None = None,
    ) -> FaceState:
        """Return the state after a new sample.

        Args:
            p_fake: Calibrated probability of a fake, 0..1; None while the window is too short for a score.
            window_fill: Filled share of the window, 0..1.
            now: Time of the sample.
            reason: Why the image does not allow a decision, whatever the score; None if it does.

        Returns:
            `warming` without a score or below `min_fill`, else `real`, `uncertain` or `fake`.
        """
        # After an expiry the previous state has no influence on the hysteresis.
        previous = self.current(now)
        # The tolerance absorbs rounding of the quotient: 5/16 of a window must count as 5 samples.
        if p_fake is None or window_fill < self.min_fill - 1e-9:
            self._state = "warming"
        elif reason is not None:
            self._state = "uncertain"
        else:
            self._state = self._decide(p_fake, previous)
        self._sampled_at = now
        return self._state

    def current(self, now: float) -> FaceState:
        """Return the state at a time without a new sample; `stale` once the last sample has expired."""
        if self._sampled_at is not None and now - self._sampled_at > self.expiry_s:
            return "stale"
        return self._state

    def keep_alive(self, now: float) -> None:
        """Keep the state valid after a sample that was buffered but not scored.

        Args:
            now: Time of the sample.
        """
        # A state that has expired stays expired until there is a new score.
        if self.current(now) != "stale":
            self._sampled_at = now

    def reset(self) -> None:
        """Start again at `warming`, after the window was cleared."""
        self._state = "warming"
        self._sampled_at = None

    def _decide(self, p_fake: float, previous: FaceState) -> FaceState:
        limits = self.calibration
        if previous == "fake" and p_fake >= limits.threshold_fake - limits.hysteresis:
            return "fake"
        if previous == "real" and p_fake <= limits.threshold_real + limits.hysteresis:
            return "real"
        if p_fake >= limits.threshold_fake:
            return "fake"
        if p_fake <= limits.threshold_real:
            return "real"
        return "uncertain"


class RateLimit:
    """Selection of samples at the requested average rate: those that get a verdict, or are shown to a client.

    For a rate that does not divide the sample rate, such as 5 of 8 Hz, the intervals between the selected
    samples vary by one sample.

    Args:
        rate_hz: Selected samples per second of media time.

    Raises:
        ValueError: `rate_hz` is not positive.
    """

    def __init__(self, rate_hz: float) -> None:
        if not rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, not {rate_hz}")
        self._interval_s = 1 / rate_hz
        self._last_s = float("inf")
        self._due_s = 0.0

    def due(self, pts_s: float) -> bool:
        """Return whether a sample is selected.

        Args:
            pts_s: Media time of the sample in seconds. Call it for every sample, in order.
        """
        # At the first sample, and after a jump back or a gap, the schedule starts again.
        restart = pts_s < self._last_s or pts_s - self._due_s > self._interval_s
        self._last_s = pts_s
        if not restart and pts_s < self._due_s - 1e-6:
            return False
        self._due_s = (pts_s if restart else self._due_s) + self._interval_s
        return True
