"""Restart of a stream that has failed with an unexpected error: when, how often, and what is logged. Pure."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from streams.input.reader import Backoff
from streams.input.source import Source
from streams.text import printable

# A file begins again with its first frame. One that fails again and again must come to an end.
MAX_FILE_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Decision on a failed stream.

    Args:
        delay_s: Time in seconds until the restart; None if there is none.
        reason: Reason to publish; contains nothing of the error's text.
        log: Text to log: a traceback, or one line if the error is the same as the last one.
    """

    delay_s: float | None
    reason: str
    log: str


class RestartPolicy:
    """Decisions on the restarts of one stream.

    Args:
        source: Source of the stream; its address is not shown in tracebacks.
        backoff: Delays between restarts. After a run that was longer than its maximum, it starts again.
    """

    def __init__(self, source: Source, backoff: Backoff) -> None:
        self._source = source
        self._backoff = backoff
        self._failures = 0
        self._last: list[tuple[str, int | None]] | None = None

    def failed(self, error: BaseException, *, ran_s: float, chance: float) -> Restart:
        """Decide on a failure.

        Args:
            error: The unexpected error.
            ran_s: Time in seconds since the start, or the last restart.
            chance: A random number in [0, 1), for the jitter of the delay.
        """
        live = self._source.live
        if live and ran_s > self._backoff.max_s:
            self._failures = 0
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures, chance)
        final = not live and self._failures >= MAX_FILE_FAILURES
        last, self._last = self._last, _place(error)
        kind = type(error).__name__
        outcome = "not trying again" if final else f"starting again in {delay_s:.1f} s"
        log = f"{self._source.name}: internal error ({kind}), {outcome}; the other streams continue"
        if self._last != last:
            log += f"\n{self._traceback(error)}"
        return Restart(
            delay_s=None if final else delay_s, reason=f"internal error ({kind}), see the log", log=log
        )

    def _traceback(self, error: BaseException) -> str:
        text = "".join(traceback.format_exception(error))
        secret, shown = self._source.address.reveal(), str(self._source.address)
        # Not `printable` for the whole: it makes one line of it.
        lines = text.replace(secret, shown).splitlines()
        return "\n".join(line[: len(line) - len(line.lstrip())] + printable(line) for line in lines)


def _place(error: BaseException) -> list[tuple[str, int | None]]:
    """Return the type of an error and the lines of code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    return [(type(error).__name__, None), *((frame.filename, frame.lineno) for frame in frames)]
