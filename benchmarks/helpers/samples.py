"""Check of a video file, and its due samples, as fast as they are taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from streams.errors import EndOfStream
from streams.input.capture.factory import open_capture
from streams.input.capture.interface import Timeouts
from streams.input.frame import Frame
from streams.input.reader import open_reader
from streams.input.source import Source

TIMEOUT_S = 10.0


def check_video(source: Source) -> None:
    """Raise an error unless a file contains a video; other sources are not opened.

    Args:
        source: The source.

    Raises:
        SourceError: The file cannot be read or contains no video.
    """
    if source.kind == "file":
        open_capture(source, timeouts=Timeouts(), stop=threading.Event()).close()


def file_samples(source: Source, sample_hz: float) -> Iterator[Frame]:
    """Yield the due samples of a file, through the reader of `unmask monitor`.

    Args:
        source: A file.
        sample_hz: Due samples per second of media time.

    Raises:
        SourceError: The file cannot be read.
    """
    with open_reader(source, sample_hz=sample_hz, on_event=lambda event: None) as reader:
        while True:
            try:
                frame = reader.next(timeout_s=TIMEOUT_S)
            except EndOfStream as end:
                if end.__cause__ is not None:
                    raise end.__cause__ from None
                return
            if frame is not None:
                yield frame
