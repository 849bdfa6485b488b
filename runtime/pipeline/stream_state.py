"""State of one stream, expiry of its verdicts when frames stop, and restarts after unexpected errors.

No I/O and no clock: events and times are passed in, the messages to publish are returned in their order.

    stream = StreamStateMachine("cam", stall_timeout_s=0.6)
    stream.connected()
    messages = stream.frame_analysed(verdicts, faces=1, now=12.5)  # the state `live`, then the verdicts
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from runtime.messages import (
    SCORED_STATES,
    BroadcastMessage,
    DroppedBy,
    StreamHealth,
    StreamMessage,
    StreamState,
    Thresholds,
    VerdictMessage,
)
from streams.input.losses import Losses
from streams.input.reader import Backoff
from streams.input.source import Source
from streams.text import printable

Messages = list[BroadcastMessage]

# Consecutive frames in time after which a stream is live again. With one, a source or a machine at its limit
# would change its state several times a second.
RECOVERY_FRAMES = 3
INTERRUPTED_STATES = frozenset({"stalled", "overloaded"})
# Time without a score after which a stream that loses more samples than it analyses is overloaded. At the
# slowest rate that still gives scores, one comes every two seconds.
STARVED_S = 3.0

# Limited, because a restarted file begins with its first frame and may fail at the same place again.
MAX_FILE_FAILURES = 3


def stall_timeout_s(sample_hz: float) -> float:
    """Return the seconds without a frame after which a stream has stalled: five samples, at least 0.5 s.

    Not less, because frames of an H.264 stream arrive in bursts.

    Args:
        sample_hz: Sample rate of the model.
    """
    return max(0.5, 5.0 / sample_hz)


class StreamStateMachine:
    """State of one stream from the first connection attempt to its end.

    Faces have verdicts only while the stream is `live`: any change to another state first makes every face
    `stale`. Frames count only while the source is connected, so a frame that was still being analysed when
    the camera disconnected is not published afterwards.

    Args:
        stream: Name of the stream.
        stall_timeout_s: Time in seconds without a frame after which the stream is `stalled` or `overloaded`.
        thresholds: Thresholds of this stream, to be published; None for those of the program.
    """

    def __init__(self, stream: str, *, stall_timeout_s: float, thresholds: Thresholds | None = None) -> None:
        self.stream = stream
        self.thresholds = thresholds
        self.stall_timeout_s = stall_timeout_s
        self.state: StreamState = "connecting"
        self.reason: str | None = None
        # Number of connections so far, counted as the reader counts them.
        self.connection = 0
        self._connected = False
        self._too_slow = False
        self._wrong_clock: str | None = None
        # When the last frame was analysed, or the first one since the source was opened was a repetition.
        self._frame_at: float | None = None
        self._repeat_at: float | None = None
        self._recovered = 0
        self._losses_at_frame = 0
        # Time, losses and analysed frames when there was a face, and no score since.
        self._unscored: tuple[float, int, int] | None = None
        # Last verdict of every face that has not been published as stale.
        self._verdicts: dict[int, VerdictMessage] = {}
        self._analysed = 0
        self._repeated = 0
        self._waiting = 0
        self._disconnects = 0

    def current(self) -> Messages:
        """Return the message with the current state."""
        return [self._message()]

    def connected(self) -> Messages:
        """Handle an opened source; the stream becomes `live` only when a frame has been analysed."""
        self._connected = True
        self._too_slow = False
        self._wrong_clock = None
        self._frame_at = self._unscored = None
        self.connection += 1
        return self._change("connecting")

    def disconnected(self, reason: str) -> Messages:
        """Handle a source that was lost or could not be opened, and will be tried again.

        Args:
            reason: Cause without credentials. The same text for all attempts of one outage avoids repeated
                messages.
        """
        self._disconnects += self._connected
        self._connected = False
        return self._change("offline", reason)

    def restarting(self, reason: str) -> Messages:
        """Handle an unexpected error, after which the source is opened again or given up.

        Args:
            reason: Cause without credentials.
        """
        messages = self.disconnected(reason)
        # The new reader counts its connections from 1.
        self.connection = 0
        return messages

    def failed(self, reason: str) -> Messages:
        """Handle a source that will not be tried again.

        Args:
            reason: Cause without credentials.
        """
        self._connected = False
        return self._change("offline", reason)

    def ended(self) -> Messages:
        """Handle the end of a finite source."""
        self._connected = False
        return self._change("ended")

    def too_slow(self, fps: float, needed_hz: float) -> Messages:
        """Handle a frame rate that is too low for the model.

        Args:
            fps: Frames per second of the source.
            needed_hz: Lowest frame rate that the model accepts.
        """
        self._too_slow = True
        return self._change("too_slow", f"{fps:.3g} frames a second, at least {needed_hz:.3g} are needed")

    def fast_enough(self) -> Messages:
        """Handle the recovery of a source that was too slow."""
        self._too_slow = False
        self._frame_at = None
        return self._change("connecting")

    def wrong_clock(self, reason: str) -> Messages:
        """Handle unusable time stamps, which are replaced by arrival times; the reason of later states.

        Args:
            reason: What is wrong with the time stamps.
        """
        self._wrong_clock = f"{reason}; arrival times are used instead"
        return self._change(self.state) if self.state in ("live", "no_face") else []

    def accepts(self, connection: int) -> bool:
        """Return whether verdicts on frames of a connection are published at present.

        Args:
            connection: Number of the connection that the frame came from, from 1.
        """
        return self._connected and not self._too_slow and connection == self.connection

    def frame_analysed(
        self,
        verdicts: Sequence[VerdictMessage],
        *,
        faces: int,
        now: float,
        done: float | None = None,
        losses: Losses | None = None,
        waiting: int = 0,
    ) -> Messages:
        """Handle the result of one frame of the present connection.

        Args:
            verdicts: Verdicts to publish; empty if none is due.
            faces: Number of faces being tracked.
            now: Time in seconds at which the analysis of the frame began.
            done: Time in seconds at which it ended; None if it took no time.
            losses: Due samples that were not analysed so far.
            waiting: Number of faces in the frame that wait for their turn to be analysed.

        Returns:
            The verdicts, after the change to `live` or before the change to `no_face`. Nothing after an
            interruption, until `RECOVERY_FRAMES` frames have come in time. The change to `overloaded` if no
            window fills, because more samples are lost than analysed.
        """
        self._analysed += 1
        self._waiting = waiting
        done = now if done is None else done
        interval_s = 0.0 if self._frame_at is None else done - self._frame_at
        took_s = done - now
        self._frame_at = done
        self._losses_at_frame = _overload(losses)
        starved = self._is_starved(verdicts, faces, now)
        if self.state in INTERRUPTED_STATES:
            in_time = max(interval_s, took_s) <= self.stall_timeout_s and not starved
            self._recovered = self._recovered + 1 if in_time else 0
            if self._recovered < RECOVERY_FRAMES:
                return []
        elif starved:
            return self._change("overloaded", "this machine is too slow: most samples are lost")
        self._recovered = 0
        messages: Messages = []
        if faces:
            messages += self._change("live")
        for verdict in verdicts:
            previous = self._verdicts.pop(verdict.face, None)
            if verdict.state != "stale":
                self._verdicts[verdict.face] = verdict
            elif previous is None:
                continue  # already published as stale, or never published
            messages.append(verdict)
        if not faces:
            messages += self._change("no_face")
        return messages

    def _is_starved(self, verdicts: Sequence[VerdictMessage], faces: int, now: float) -> bool:
        """Return whether there is a face without a score because most samples are lost."""
        if not faces or any(verdict.state in SCORED_STATES for verdict in verdicts):
            self._unscored = None
            return False
        if self._unscored is None:
            self._unscored = now, self._losses_at_frame, self._analysed
        since, losses, analysed = self._unscored
        return now - since > STARVED_S and self._losses_at_frame - losses > self._analysed - analysed

    def frame_repeated(self, now: float, *, losses: Losses | None = None) -> None:
        """Handle a frame that repeats the previous one. It does not count as new, so the stream may stall.

        Args:
            now: Time in seconds on the clock of `frame_analysed`.
            losses: Due samples that were not analysed so far.
        """
        if self._frame_at is None:
            # The image is still that of the last connection, or of the time before the source was too slow.
            self._frame_at, self._losses_at_frame = now, _overload(losses)
        self._repeated += 1
        self._repeat_at = now

    def tick(
        self, now: float, *, analysing_since: float | None = None, losses: Losses | None = None
    ) -> Messages:
        """Handle the passing of time; the stream is interrupted if no frame was analysed for too long.

        It is `overloaded` if there were frames but the machine was too slow for them, else `stalled`.

        Args:
            now: Time in seconds on the clock of `frame_analysed`.
            analysing_since: Time at which the analysis of a frame began; None if none is being analysed.
            losses: Due samples that were not analysed so far.
        """
        if self._frame_at is None:
            return []
        # A frame that is being analysed ends the silence of the source.
        active_at = self._frame_at if analysing_since is None else max(self._frame_at, analysing_since)
        if now - active_at <= self.stall_timeout_s:
            return []
        if self.state not in ("live", "no_face", "connecting"):
            return []
        limit = f"for more than {self.stall_timeout_s:.2g} s"
        if analysing_since is not None or _overload(losses) > self._losses_at_frame:
            return self._change("overloaded", f"this machine is too slow: no frame was analysed {limit}")
        if self._repeat_at is not None and self._repeat_at > self._frame_at:
            return self._change("stalled", f"the image has not changed {limit}")
        return self._change("stalled", f"no frame {limit}")

    def health(self, losses: Losses) -> StreamHealth:
        """Return the counters since the start.

        Args:
            losses: Due samples that were not analysed.
        """
        return StreamHealth(
            stream=self.stream,
            state=self.state,
            analysed=self._analysed,
            dropped=losses.total + self._repeated,
            dropped_by=DroppedBy(
                queue=losses.queue,
                skipped=losses.skipped,
                corrupt=losses.corrupt,
                refused=losses.refused,
                repeated=self._repeated,
            ),
            reconnects=self._disconnects,
            waiting=self._waiting if self.state == "live" else 0,
        )

    def removed(self, reason: str) -> Messages:
        """Handle a stream that is no longer watched, or not under this name.

        Args:
            reason: What has happened to it.
        """
        return self._change("removed", reason)

    def renamed(self, stream: str) -> Messages:
        """Continue under another name; faces keep their ids.

        Args:
            stream: The new name.
        """
        state, reason = self.state, self.reason
        # Without the new name: a client that may read only the old one learns nothing of other streams.
        messages = self.removed("renamed")
        self.stream, self.state, self.reason = stream, state, reason
        return [*messages, self._message()]

    def _change(self, state: StreamState, reason: str | None = None) -> Messages:
        if state in ("live", "no_face"):
            reason = self._wrong_clock
        if (state, reason) == (self.state, self.reason):
            return []
        self.state, self.reason = state, reason
        messages: Messages = []
        if state != "live":
            # `pts_s` and `captured` stay those of the frame on which the last verdict was based.
            messages += [
                replace(verdict, state="stale", p_fake=None, latency_ms=None, reason=None)
                for verdict in self._verdicts.values()
            ]
            self._verdicts.clear()
        return [*messages, self._message()]

    def _message(self) -> StreamMessage:
        return StreamMessage(
            stream=self.stream, state=self.state, reason=self.reason, thresholds=self.thresholds
        )


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
        backoff: Delays between restarts. The delay is reset after a run that lasted longer than the maximum.
    """

    def __init__(self, source: Source, backoff: Backoff) -> None:
        self._source = source
        self._backoff = backoff
        self._failures = 0
        self._last: list[tuple[str, int | None]] | None = None

    def failed(self, error: BaseException, *, ran_s: float, finite: bool, chance: float) -> Restart:
        """Decide on a failure.

        Args:
            error: The unexpected error.
            ran_s: Time in seconds since the start, or the last restart.
            finite: Whether the source has an end, as a file does.
            chance: A random number in [0, 1), for the jitter of the delay.
        """
        if not finite and ran_s > self._backoff.max_s:
            self._failures = 0
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures, chance)
        final = finite and self._failures >= MAX_FILE_FAILURES
        last, self._last = self._last, _origin(error)
        kind = type(error).__name__
        outcome = "not trying again" if final else f"starting again in {delay_s:.1f} s"
        log = f"{self._source.name}: internal error ({kind}), {outcome}; the other streams continue"
        if self._last != last:
            log += f"\n{self._traceback(error)}"
        return Restart(
            delay_s=None if final else delay_s, reason=f"internal error ({kind}), see the log", log=log
        )

    def _traceback(self, error: BaseException) -> str:
        text = self._source.address.hide_in("".join(traceback.format_exception(error)))
        # Line by line, because `printable` removes line breaks and indentation.
        lines = text.splitlines()
        return "\n".join(line[: len(line) - len(line.lstrip())] + printable(line) for line in lines)


def _origin(error: BaseException) -> list[tuple[str, int | None]]:
    """Return the type of an error and the lines of code that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    return [(type(error).__name__, None), *((frame.filename, frame.lineno) for frame in frames)]


def _overload(losses: Losses | None) -> int:
    """Return the number of samples that were lost because this machine was too slow."""
    return 0 if losses is None else losses.queue + losses.skipped
