"""Evidence output: collects events from messages and frames, and writes each into a folder of its own."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from runtime.errors import os_reason
from runtime.messages import StreamMessage
from runtime.outputs.background_writer import BackgroundWriter
from runtime.outputs.evidence.events import Event, EventCollector, EventLimits
from runtime.outputs.evidence.frame_ring import FrameRings
from runtime.outputs.evidence.manifest import MANIFEST, ModelFacts, file_sha256
from runtime.outputs.evidence.store import EvidenceStore
from runtime.outputs.evidence.writer import write_event
from runtime.outputs.interface import FailureLog
from runtime.pipeline.stream_thread import ScoredFrame
from runtime.serving.client_queue import EncodedMessage
from streams.input.clips.packet_ring import RingLimits

logger = logging.getLogger(__name__)

# Complete events that wait to be written; each contains a frame and refers to the packets of its source.
CAPACITY = 8
# Packets are kept for longer than an event lasts, because it is cut after its end.
RING_MARGIN_S = 5.0
# Time between deletions of old events, besides those after each new one.
ROOM_INTERVAL_S = 600.0
# Time at the end for the events of the last seconds, also after a signal.
MIN_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Forget:
    """Instruction to drop the frames of a stream that was removed, after its events were written."""

    stream: str


class EvidenceRecorder:
    """Recorder of evidence; an output.

    Pass it every message and, by `on_frame`, every scored frame. Both return at once; files are written on a
    thread of its own. A disk that is full or fails is logged once, and costs the events of that time only.

    Args:
        store: Where the events are kept.
        limits: Extent of an event.
        model: Model and program.
        chance: Returns a random number in [0, 1).
        wall: Unix time in seconds, comparable with that of the messages.
    """

    def __init__(
        self,
        store: EvidenceStore,
        limits: EventLimits,
        model: ModelFacts,
        *,
        chance: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = "evidence"
        self.store = store
        self._limits = limits
        self._model = model
        self._chance = chance
        self._wall = wall
        # Messages and frames come from the threads of the streams.
        self._lock = threading.Lock()
        self._collector = EventCollector(limits)
        self._failures = FailureLog(logger, f"evidence in {store.folder}")
        self._made_room = 0.0
        self._frames = FrameRings(self.ring_limits)
        self._writer: BackgroundWriter[Event | _Forget | None] = BackgroundWriter(
            "evidence", self._write, capacity=CAPACITY
        )

    @property
    def ring_limits(self) -> RingLimits:
        """Limits of the packets that the sources should keep."""
        return RingLimits(seconds=self._limits.seconds + RING_MARGIN_S)

    @property
    def lost(self) -> int:
        """Number of events of which no evidence was kept, though it should have been."""
        return self._writer.lost + self._collector.refused

    def __call__(self, encoded: EncodedMessage) -> None:
        """Remember a message; returns at once. Heartbeats complete the events of streams without frames."""
        now = encoded.message.time
        with self._lock:
            self._collector.add_message(encoded)
            finished = self._collector.finished(now)
            make_room = abs(now - self._made_room) > ROOM_INTERVAL_S
            if make_room:
                self._made_room = now
        self._queue(finished)
        if isinstance(encoded.message, StreamMessage) and encoded.message.state == "removed":
            self._writer.put(_Forget(encoded.message.stream))
        if make_room:
            self._writer.put(None)

    def on_frame(self, scored: ScoredFrame) -> None:
        """Remember a scored frame; returns at once."""
        if scored.packets is None or not scored.packets.has_packets:
            self._frames.add(scored.stream, scored.frame)
        with self._lock:
            self._collector.add_frame(scored, self._chance())
            finished = self._collector.finished(self._wall())
        self._queue(finished)

    def finish(self) -> bool:
        """Complete the events being collected, accept no more, and return whether all have been written."""
        with self._lock:
            finished = self._collector.finished(self._wall(), all_of_them=True)
        self._queue(finished)
        return self._writer.finish()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Write the waiting events and stop.

        Args:
            timeout_s: Longest time to wait for the disk, raised to `MIN_CLOSE_S`; None for no limit.
        """
        self.finish()
        self._writer.close(timeout_s=None if timeout_s is None else max(timeout_s, MIN_CLOSE_S))
        self._frames.close(timeout_s=0.0)
        self._failures.closed(self.lost)

    def _queue(self, events: list[Event]) -> None:
        for event in events:
            self._writer.put(event)

    def _kept_frames(self, event: Event) -> list[tuple[float, bytes]]:
        stream, pts_s = event.verdict.stream, event.frame.pts_s
        return self._frames.cut(stream, pts_s - self._limits.before_s, pts_s + self._limits.after_s)

    def _write(self, event: Event | _Forget | None) -> None:
        if event is None:
            self.store.make_room()
            return
        if isinstance(event, _Forget):
            self._frames.forget(event.stream)
            return
        try:
            draft = self.store.new_draft()
            try:
                manifest = write_event(
                    draft, event, self._model, self._limits, frames=self._kept_frames(event)
                )
                digest = file_sha256(draft / MANIFEST)
                self.store.publish(draft, manifest)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        except OSError as error:
            reason = os_reason(error)
            self._failures.failed(reason, "events are lost until it succeeds")
            raise
        self._failures.succeeded(self.lost)
        # The hash of the manifest in the log makes it harder to change the evidence afterwards.
        logger.info("%s: evidence %s is kept, manifest SHA-256 %s", manifest.stream, manifest.id, digest)
