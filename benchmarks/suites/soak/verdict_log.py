"""Times of the scored verdicts of each stream, as a client receives them; gaps between them."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from runtime.client import watch
from runtime.messages import SCORED_STATES


class VerdictLog:
    """Client on a thread of its own that notes when each stream had a score. A context manager.

    Args:
        address: Address of the WebSocket.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._times: dict[str, list[float]] = {}
        self._states: list[tuple[float, str, str]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="verdict log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5.0)

    def times(self, stream: str) -> list[float]:
        """Return the times of the scores of a stream, in seconds of `time.monotonic`."""
        return list(self._times.get(stream, ()))

    def overloads(self, stream: str, until_s: float) -> list[tuple[float, float]]:
        """Return the time spans in which a stream was `overloaded`, up to a time."""
        spans: list[tuple[float, float]] = []
        since: float | None = None
        for at_s, name, state in list(self._states):
            if name == stream:
                if since is not None:
                    spans.append((since, at_s))
                since = at_s if state == "overloaded" else None
        return [*spans, (since, until_s)] if since is not None else spans

    def states(self, since_s: float, until_s: float) -> dict[str, list[str]]:
        """Return the states that each stream changed to within a time span."""
        seen: dict[str, list[str]] = {}
        for at_s, stream, state in list(self._states):
            if since_s <= at_s < until_s:
                seen.setdefault(stream, []).append(state)
        return seen

    def _run(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        receiving = asyncio.create_task(self._receive())
        await self._stop.wait()
        receiving.cancel()
        await asyncio.wait([receiving])

    async def _receive(self) -> None:
        async with watch(self._address) as messages:
            async for message in messages:
                now = time.monotonic()
                if message["type"] == "verdict" and message["state"] in SCORED_STATES:
                    self._times.setdefault(message["stream"], []).append(now)
                elif message["type"] == "stream":
                    self._states.append((now, message["stream"], message["state"]))


def longest_gap_s(
    times: list[float], since_s: float, until_s: float, *, excused: Sequence[tuple[float, float]] = ()
) -> float:
    """Return the longest time without a score within a time span; all of it if there is none.

    Args:
        times: Times of the scores, in order.
        since_s: Start of the span.
        until_s: End of the span.
        excused: Time spans that do not count.
    """
    inside = times[bisect_left(times, since_s) : bisect_right(times, until_s)]
    # Each excused span ends one gap and begins another.
    ends = sorted(
        [(at_s, at_s) for at_s in (since_s, *inside, until_s)] + _clipped(excused, since_s, until_s)
    )
    longest, last_s = 0.0, since_s
    for start_s, end_s in ends:
        longest = max(longest, start_s - last_s)
        last_s = max(last_s, end_s)
    return longest


def seconds_within(spans: Sequence[tuple[float, float]], since_s: float, until_s: float) -> float:
    """Return the length of time spans, within another one.

    Args:
        spans: The time spans, which do not overlap.
        since_s: Start of the other one.
        until_s: End of the other one.
    """
    return sum(end_s - start_s for start_s, end_s in _clipped(spans, since_s, until_s))


def _clipped(
    spans: Sequence[tuple[float, float]], since_s: float, until_s: float
) -> list[tuple[float, float]]:
    return [(max(a, since_s), min(b, until_s)) for a, b in spans if a < until_s and b > since_s]


def first_after(times: list[float], since_s: float) -> float | None:
    """Return the seconds from a time to the next score; None if there is none.

    Args:
        times: Times of the scores, in order.
        since_s: The time.
    """
    index = bisect_left(times, since_s)
    return times[index] - since_s if index < len(times) else None
