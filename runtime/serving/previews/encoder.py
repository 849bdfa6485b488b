"""Encoding of scored frames as JPEG, on a thread of its own.

    with PreviewEncoder(deliver) as encoder:
        encoder.want(lambda stream: {640: 8.0})  # all streams: 640 pixels, 8 a second
        encoder.offer("cam", frame)  # on the stream's thread

One frame per stream waits; a newer one takes its place. The encoding uses at most `CPU_SHARE` of one core:
beyond it there are fewer frames per second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from runtime.messages import PreviewHeader, encode_preview
from runtime.serving.client_queue import EncodedPreview
from runtime.serving.previews.demand import EncodingSchedule, Formats
from runtime.serving.previews.jpeg import JpegEncoder
from streams.input.frame import Frame

CPU_SHARE = 0.25

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    frame: Frame
    widths: frozenset[int]


class PreviewEncoder:
    """Encoder of the frames that are wanted; a context manager that runs its thread.

    Args:
        deliver: Receives each encoded frame, on that thread.
        cpu_share: Largest share of one core that the encoding uses, above 0 and up to 1.

    Raises:
        ValueError: The share is out of its range.
    """

    def __init__(self, deliver: Callable[[EncodedPreview], object], *, cpu_share: float = CPU_SHARE) -> None:
        if not 0 < cpu_share <= 1:
            raise ValueError(f"cpu_share must be above 0 and at most 1, not {cpu_share}")
        self.encoded = 0
        """Number of JPEG images made so far."""
        self.spent_s = 0.0
        """CPU time spent on them, in seconds."""
        self._deliver = deliver
        self._rest_per_s = 1 / cpu_share - 1
        # Guards the schedule and the jobs.
        self._lock = threading.Lock()
        self._schedule = EncodingSchedule()
        self._jobs: dict[str, _Job] = {}
        self._failed: set[str] = set()
        self._waiting = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._waiting.set()
        self._thread.join()

    def want(self, formats: Callable[[str], Formats]) -> None:
        """Change which frames are encoded, from any thread.

        Args:
            formats: Returns what is wanted of a stream.
        """
        with self._lock:
            self._schedule.update(formats)

    def offer(self, stream: str, frame: Frame) -> None:
        """Take a scored frame, from any thread; returns at once.

        Args:
            stream: Name of the stream.
            frame: The frame; it must not be changed afterwards.
        """
        with self._lock:
            widths = self._schedule.due(stream, frame.pts_s)
            if not widths:
                return
            waiting = self._jobs.get(stream)
            # The stream keeps its turn, and the widths that the replaced frame was to be encoded for.
            self._jobs[stream] = _Job(frame, widths if waiting is None else widths | waiting.widths)
        self._waiting.set()

    def _run(self) -> None:
        encoder = JpegEncoder()
        while not self._stopping.is_set():
            self._waiting.wait()
            self._waiting.clear()
            while (job := self._next_job()) is not None and not self._stopping.is_set():
                started = time.thread_time()
                self._encode(encoder, *job)
                spent_s = time.thread_time() - started
                self.spent_s += spent_s
                self._stopping.wait(self._rest_per_s * spent_s)

    def _next_job(self) -> tuple[str, _Job] | None:
        with self._lock:
            stream = next(iter(self._jobs), None)
            return None if stream is None else (stream, self._jobs.pop(stream))

    def _encode(self, encoder: JpegEncoder, stream: str, job: _Job) -> None:
        frame = job.frame
        try:
            for width in sorted(job.widths):
                jpeg, actual_width, height = encoder.encode(frame.image, width)
                header = PreviewHeader(
                    stream=stream,
                    pts_s=frame.pts_s,
                    captured=frame.captured,
                    width=actual_width,
                    height=height,
                )
                data = encode_preview(header, jpeg)
                self.encoded += 1
                self._deliver(EncodedPreview(stream, width, frame.pts_s, data))
        except Exception:
            # Verdicts do not depend on it. Once per stream, because every frame would fail alike.
            if stream not in self._failed:
                self._failed.add(stream)
                logger.exception("%s: no frames can be shown", stream)
