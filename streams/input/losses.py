"""Counts of due samples that were not analysed, by cause. No I/O and no clock."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LossMeter", "Losses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Due samples of one stream without a verdict, by cause.

    Args:
        queue: Left out by the sampler or dropped from the queue, because the analysis was too slow.
        skipped: Within packets that were skipped to catch up with a live source.
        corrupt: Within damaged data.
        refused: Taken, but not analysed: the source was too slow, or already disconnected.
    """

    queue: int = 0
    skipped: int = 0
    corrupt: int = 0
    refused: int = 0

    def __add__(self, other: Losses) -> Losses:
        """Return the sums by cause."""
        return Losses(
            queue=self.queue + other.queue,
            skipped=self.skipped + other.skipped,
            corrupt=self.corrupt + other.corrupt,
            refused=self.refused + other.refused,
        )

    @property
    def total(self) -> int:
        """Return the sum over all causes."""
        return self.queue + self.skipped + self.corrupt + self.refused


class LossMeter:
    """Due samples lost before the sampler, inferred from the intervals between samples.

    Args:
        sample_hz: Nominal rate in samples per second of media time.

    Attributes:
        skipped: Samples lost with skipped packets.
        corrupt: Samples lost with damaged data.
    """

    def __init__(self, sample_hz: float) -> None:
        self.skipped = 0
        self.corrupt = 0
        self._sample_hz = sample_hz
        self._last: tuple[int, int, float, int, int] | None = None

    def sampled(self, time_s: float, *, connection: int, timeline: int, skipped: int, corrupt: int) -> None:
        """Count the samples lost since the previous one.

        Args:
            time_s: Media time of the new sample in seconds.
            connection: Number of the connection; nothing is counted across connections.
            timeline: Number of jumps of media time; nothing is counted across a jump.
            skipped: Packets skipped so far in this connection.
            corrupt: Frames lost to damaged data so far in this connection.
        """
        last, self._last = self._last, (connection, timeline, time_s, skipped, corrupt)
        if last is None or last[:2] != (connection, timeline):
            return
        lost = max(0, round((time_s - last[2]) * self._sample_hz) - 1)
        # At most one sample per packet or frame; the rest of the interval is a gap in the source itself.
        by_skipping = min(lost, skipped - last[3])
        self.skipped += by_skipping
        self.corrupt += min(lost - by_skipping, corrupt - last[4])

    def ended(self, elapsed_s: float, *, skipped: int, corrupt: int) -> None:
        """Count the samples lost between the last one and the end of a connection.

        Args:
            elapsed_s: Seconds since the last sample.
            skipped: Packets skipped so far in this connection.
            corrupt: Frames lost to damaged data so far in this connection.
        """
        if self._last is not None:
            connection, timeline, last_s, *_ = self._last
            self.sampled(
                last_s + elapsed_s,
                connection=connection,
                timeline=timeline,
                skipped=skipped,
                corrupt=corrupt,
            )
        self._last = None
