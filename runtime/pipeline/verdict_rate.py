"""How often a verdict is due, where fewer are wanted than there are samples."""

from __future__ import annotations


class VerdictRate:
    """Chooses among samples so that the chosen ones average a rate.

    Of eight samples a second, five verdicts a second take some that are neighbours and some that are not.

    Args:
        rate_hz: Verdicts a second of media time.

    Raises:
        ValueError: `rate_hz` is not positive.
    """

    def __init__(self, rate_hz: float) -> None:
        if not rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, not {rate_hz}")
        self._step_s = 1 / rate_hz
        self._last_s = float("inf")
        self._due_s = 0.0

    def due(self, pts_s: float) -> bool:
        """Decide on a sample.

        Args:
            pts_s: Its media time in seconds; every sample is asked about, in order.

        Returns:
            Whether it is to get a verdict.
        """
        # The first sample, a jump back, or a hole: there is nothing to catch up with.
        restart = pts_s < self._last_s or pts_s - self._due_s > self._step_s
        self._last_s = pts_s
        if not restart and pts_s < self._due_s - 1e-6:
            return False
        self._due_s = (pts_s if restart else self._due_s) + self._step_s
        return True
