"""Events of which evidence is kept: which verdicts begin one, and what belongs to it. No I/O.

collector = EventCollector(EventLimits())
collector.add_message(encoded)          # every published message
collector.add_frame(scored, chance)     # every scored frame
for event in collector.finished(now): write(event)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runtime.messages import (
    SCORED_STATES,
    BroadcastMessage,
    FaceState,
    StreamMessage,
    StreamState,
    VerdictMessage,
)
from runtime.model.calibration import Calibration
from runtime.pipeline.stream_thread import ScoredFrame
from runtime.serving.client_queue import EncodedMessage
from streams.input.clips.packet_ring import PacketRing
from streams.input.frame import Frame

EventKind: TypeAlias = Literal["fake", "control"]

# A face whose state changes back and forth begins one event in this time.
COOLDOWN_S = 30.0
# Time by which a slow machine or an interrupted source may be late, before an event is closed without it.
GRACE_S = 4.0
# Events of one stream that are being collected at the same time.
MAX_OPEN = 4
# Messages remembered of one stream: 8 faces at 8 verdicts a second for a minute.
MAX_TRAIL = 4096
ENDED_STATES: frozenset[StreamState] = frozenset({"ended", "offline", "removed"})


@dataclass(frozen=True, kw_only=True)
class EventLimits:
    """Extent of an event.

    Args:
        before_s: Seconds before the verdict that belong to it, 0..60.
        after_s: Seconds after the verdict, 0..60.
        control_share: Share of the time without a fake face that is kept as random control samples, 0..1.
        crops: Number of newest crops of the face.

    Raises:
        ValueError: A value is out of its range.
    """

    before_s: float = 5.0
    after_s: float = 5.0
    control_share: float = 0.0
    crops: int = 16

    def __post_init__(self) -> None:
        if not (0 <= self.before_s <= 60 and 0 <= self.after_s <= 60):
            raise ValueError("seconds before and after an event must be within 0..60")
        if not 0 <= self.control_share <= 1:
            raise ValueError(f"the share of control samples must be within 0..1, not {self.control_share:g}")

    @property
    def seconds(self) -> float:
        """Length of an event."""
        return self.before_s + self.after_s


@dataclass(kw_only=True, eq=False)
class Event:
    """Event with everything that was collected of it.

    Args:
        kind: `fake` for a face that has turned fake, `control` for a random sample.
        verdict: Verdict that began it, as published.
        frame: Frame of the verdict.
        crops: Newest scored crops of the face, with the media time of each in seconds, oldest first.
        packets: Packets of the source; None if they are not kept.
        trail: JSON of the published messages about the stream, from before to after the verdict.
        calibration: Thresholds of the stream; None for those of the program.
    """

    kind: EventKind
    verdict: VerdictMessage
    frame: Frame
    crops: list[tuple[float, NDArray[np.uint8]]]
    packets: PacketRing | None
    trail: list[bytes]
    calibration: Calibration | None = None


@dataclass
class _Stream:
    """Memory of one stream."""

    trail: deque[tuple[float, bytes]] = field(default_factory=lambda: deque(maxlen=MAX_TRAIL))
    verdicts: dict[int, VerdictMessage] = field(default_factory=dict)
    states: dict[int, FaceState] = field(default_factory=dict)
    crops: dict[int, deque[tuple[float, NDArray[np.uint8]]]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    began: dict[int, float] = field(default_factory=dict)
    last_frame_s: float | None = None
    over: bool = False
    removed: bool = False


class EventCollector:
    """Detection and collection of the events of all streams; not safe for several threads at once.

    Times are those of the published messages, Unix seconds.

    Args:
        limits: Extent of an event.
    """

    def __init__(self, limits: EventLimits) -> None:
        self.refused = 0
        """Number of events that were not kept, because too many were being collected."""
        self._limits = limits
        self._streams: dict[str, _Stream] = {}

    def add_message(self, encoded: EncodedMessage) -> None:
        """Remember a published message about a stream."""
        message: BroadcastMessage = encoded.message
        if not isinstance(message, VerdictMessage | StreamMessage):
            return
        stream = self._streams.setdefault(message.stream, _Stream())
        stream.trail.append((message.time, encoded.data))
        while stream.trail and message.time - stream.trail[0][0] > self._limits.before_s:
            stream.trail.popleft()
        for event in stream.events:
            event.trail.append(encoded.data)
        if isinstance(message, StreamMessage):
            stream.over = message.state in ENDED_STATES
            stream.removed = message.state == "removed"
        elif message.state == "stale":
            for memory in (stream.verdicts, stream.states, stream.crops):
                memory.pop(message.face, None)
        else:
            stream.verdicts[message.face] = message

    def add_frame(self, scored: ScoredFrame, chance: float) -> None:
        """Begin the events that the verdicts on a frame give rise to.

        Args:
            scored: The frame; its messages have been added before.
            chance: Random number in [0, 1), for control samples.
        """
        stream = self._streams.setdefault(scored.stream, _Stream())
        self._remember_crops(stream, scored.frame.pts_s, scored.crops)
        controls = [verdict for verdict in scored.verdicts if verdict.state in SCORED_STATES - {"fake"}]
        if controls and chance < self._control_chance(stream, scored.frame.pts_s):
            self._begin("control", stream, scored, controls[int(chance * 1e6) % len(controls)])
        stream.last_frame_s = scored.frame.pts_s
        for verdict in scored.verdicts:
            turned = verdict.state == "fake" and stream.states.get(verdict.face) != "fake"
            stream.states[verdict.face] = verdict.state
            if turned:
                self._begin("fake", stream, scored, verdict)

    def finished(self, now: float, *, all_of_them: bool = False) -> list[Event]:
        """Remove and return the events whose time after the verdict is over, or whose stream is.

        Args:
            now: Unix seconds.
            all_of_them: Whether to return the others too.
        """
        finished: list[Event] = []
        for stream in self._streams.values():
            over = [
                event
                for event in stream.events
                if all_of_them or stream.over or self._is_over(event, stream, now)
            ]
            stream.events = [event for event in stream.events if event not in over]  # by identity
            finished += over
        for name in [name for name, stream in self._streams.items() if stream.removed]:
            del self._streams[name]
        return finished

    def _is_over(self, event: Event, stream: _Stream, now: float) -> bool:
        """Return whether the media time after an event has passed, or frames have not come for too long."""
        # The time in the verdict is rounded.
        pts_s, newest_s = event.frame.pts_s, stream.last_frame_s
        if newest_s is not None and not 0 <= newest_s - pts_s < self._limits.after_s:
            return True  # also after a jump back of media time
        # An absolute difference, because the clock may be set back.
        return abs(now - event.verdict.time) >= self._limits.after_s + GRACE_S

    def _remember_crops(self, stream: _Stream, pts_s: float, crops: Mapping[int, NDArray[np.uint8]]) -> None:
        for face, crop in crops.items():
            ring = stream.crops.setdefault(face, deque(maxlen=self._limits.crops))
            if ring and pts_s <= ring[-1][0]:
                ring.clear()  # media time has jumped back
            ring.append((pts_s, crop))
        # Faces that are gone without a message, in a stream that has no verdicts yet.
        for face in [face for face in stream.crops if face not in crops and face not in stream.verdicts]:
            del stream.crops[face]

    def _control_chance(self, stream: _Stream, pts_s: float) -> float:
        """Return the probability that a frame begins a control sample, from the time since the last one."""
        if stream.last_frame_s is None or self._limits.seconds <= 0:
            return 0.0
        elapsed_s = min(max(pts_s - stream.last_frame_s, 0.0), 1.0)
        return self._limits.control_share * elapsed_s / self._limits.seconds

    def _begin(self, kind: EventKind, stream: _Stream, scored: ScoredFrame, verdict: VerdictMessage) -> None:
        published = stream.verdicts.get(verdict.face, verdict)
        began_s = stream.began.get(verdict.face)
        if kind == "fake":
            if began_s is not None and 0 <= published.time - began_s < COOLDOWN_S:
                return
            stream.began = {
                face: time for face, time in stream.began.items() if published.time - time < COOLDOWN_S
            }
            stream.began[verdict.face] = published.time
        if len(stream.events) >= MAX_OPEN:
            self.refused += 1
            return
        stream.events.append(
            Event(
                kind=kind,
                verdict=published,
                frame=scored.frame,
                crops=list(stream.crops.get(verdict.face, ())),
                packets=scored.packets,
                trail=[data for _, data in stream.trail],
                calibration=scored.calibration,
            )
        )
