"""Tests of the queue and thread of an output."""

from __future__ import annotations

import threading

import pytest

from runtime.outputs.background_writer import BackgroundWriter

TIMEOUT_S = 30.0


class Gate:
    """Output that blocks until it is opened."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, item: int) -> None:
        self.entered.set()
        assert self.open.wait(TIMEOUT_S)
        self.written.append(item)


def test_a_blocked_output_loses_its_oldest_items() -> None:
    """`put` returns while the output blocks; the newest items are written afterwards."""
    gate = Gate()
    with BackgroundWriter("test", gate, capacity=3) as writer:
        writer.put(0)
        assert gate.entered.wait(TIMEOUT_S)
        for item in range(1, 11):
            writer.put(item)
        assert (writer.lost, writer.waiting, writer.idle) == (7, 3, False)
        gate.open.set()
    assert gate.written == [0, 8, 9, 10]
    assert writer.idle


def test_closing_does_not_wait_for_a_blocked_output() -> None:
    """Items left after the timeout, and later ones, are counted as lost."""
    gate = Gate()
    writer = BackgroundWriter("test", gate, capacity=3)
    writer.put(1)
    assert gate.entered.wait(TIMEOUT_S)
    writer.put(2)
    assert not writer.close(timeout_s=0.0)
    writer.put(3)
    assert writer.lost == 2
    gate.open.set()
    assert writer.close(timeout_s=TIMEOUT_S)
    assert gate.written == [1]


def test_an_output_that_fails_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Failed items are counted; an internal error is logged once with its traceback."""
    written = []

    def write(item: int) -> None:
        if item % 2:
            raise OSError("no space") if item == 1 else ValueError("a bug")
        written.append(item)

    with BackgroundWriter("test", write, capacity=10) as writer:
        for item in range(6):
            writer.put(item)
    assert written == [0, 2, 4]
    assert writer.lost == 3
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_capacity_below_one_is_refused() -> None:
    """A queue holds at least one item."""
    with pytest.raises(ValueError, match="at least 1"):
        BackgroundWriter("test", print, capacity=0)
