"""Support of property tests: number of examples, mutated bytes, and errors logged by a server."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st


def examples(few: int, many: int) -> settings:
    """Return settings with few examples, always the same, or with many random ones in `make fuzz`."""
    return settings(max_examples=many if os.environ.get("UNMASK_FUZZ") == "1" else few)


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """Return bytes with some changed, removed, repeated or inserted, or the end cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64, 512]))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))])
            case 1:
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * draw(st.integers(1, 3))
            case 4:
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                if draw(st.booleans()):
                    del data[at:]
    return bytes(data)


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.records.append(self.format(record))


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """Collect the errors and tracebacks that are logged meanwhile."""
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.records
    finally:
        logging.getLogger().removeHandler(handler)
