"""Reading of a source in tests: collected events, samples with a timeout, and the error of a failure."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from streams.errors import EndOfStream, SourceError
from streams.input.events import Disconnected, Event, Failed
from streams.input.frame import Frame
from streams.input.reader import Backoff, Reader, open_reader
from streams.input.source import parse_source

E = TypeVar("E", bound=Event)

SHORT_BACKOFF = Backoff(first_s=0.05, max_s=0.2)
TIMEOUT_S = 20.0  # for a machine under load; what is waited for usually comes within two seconds


class Events:
    """Events of a reader, collected on its thread; a test can wait for one of a type."""

    def __init__(self) -> None:
        self.received: list[Event] = []
        self._queue: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self.received.append(event)
        self._queue.put(event)

    def wait_for(self, kind: type[E]) -> E:
        """Return the next event of a type."""
        while True:
            event = self._queue.get(timeout=TIMEOUT_S)
            if isinstance(event, kind):
                return event


@contextmanager
def reading(text: str | Path, **options: Any) -> Iterator[tuple[Reader, Events]]:
    """Read a source at 8 Hz with short waits between attempts; options are those of `open_reader`."""
    events = Events()
    transport = options.pop("rtsp_transport", "tcp")
    source = parse_source(str(text), rtsp_transport=transport, hwaccel=options.pop("hwaccel", None))
    settings = {"sample_hz": 8.0, "backoff": SHORT_BACKOFF, **options}
    with open_reader(source, on_event=events, **settings) as reader:
        yield reader, events


def frames_of(reader: Reader) -> Iterator[Frame]:
    """Yield the samples of a finite source up to its end."""
    while True:
        try:
            frame = reader.next(TIMEOUT_S)
        except EndOfStream:
            return
        assert frame is not None
        yield frame


def take(reader: Reader) -> Frame:
    """Take the next sample."""
    frame = reader.next(TIMEOUT_S)
    assert frame is not None
    return frame


def failure_of(text: str | Path, **options: Any) -> SourceError:
    """Read a source that fails; return its error."""
    with reading(text, **options) as (reader, events):
        error = events.wait_for(Failed).error
        with pytest.raises(EndOfStream) as caught:
            reader.next(0)
        assert caught.value.__cause__ is error
        assert reader.error is error
    assert not any(isinstance(event, Disconnected) for event in events.received)
    return error
