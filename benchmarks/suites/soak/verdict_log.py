"""Times of the scored verdicts of each stream, as a client receives them; gaps between them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from bisect import bisect_left, bisect_right
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


def longest_gap_s(times: list[float], since_s: float, until_s: float) -> float:
    """Return the longest time without a score within a time span; all of it if there is none.

    Args:
        times: Times of the scores, in order.
        since_s: Start of the span.
        until_s: End of the span.
    """
    inside = times[bisect_left(times, since_s) : bisect_right(times, until_s)]
    return max(b - a for a, b in itertools.pairwise([since_s, *inside, until_s]))


def first_after(times: list[float], since_s: float) -> float | None:
    """Return the seconds from a time to the next score; None if there is none.

    Args:
        times: Times of the scores, in order.
        since_s: The time.
    """
    index = bisect_left(times, since_s)
    return times[index] - since_s if index < len(times) else None
