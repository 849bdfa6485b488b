"""Selection of the samples that get a verdict, for a verdict rate below the sample rate."""

from __future__ import annotations


class VerdictRate:
    """Selection of samples whose average rate is the requested verdict rate.

    For a rate that does not divide the sample rate, such as 5 of 8 Hz, the intervals between verdicts vary by
    one sample.

    Args:
        rate_hz: Verdicts per second of media time.

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
        """Return whether a sample is to get a verdict.

        Args:
            pts_s: Media time of the sample in seconds. Call it for every sample, in order.
        """
        # After the first sample, a jump back or a gap there are no missed verdicts to make up for.
        restart = pts_s < self._last_s or pts_s - self._due_s > self._interval_s
        self._last_s = pts_s
        if not restart and pts_s < self._due_s - 1e-6:
            return False
        self._due_s = (pts_s if restart else self._due_s) + self._interval_s
        return True
