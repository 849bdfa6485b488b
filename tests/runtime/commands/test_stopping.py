"""Ctrl-C and SIGTERM as KeyboardInterrupt."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from runtime.commands.stopping import stopped_by_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the handlers of the test process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted_import(number: signal.Signals) -> None:
    """Do what a library in C does whose initialisation a signal interrupts."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_keyboard_interrupt(number: signal.Signals) -> None:
    """Both signals end the block."""
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_import_is_a_keyboard_interrupt(number: signal.Signals) -> None:
    """The error of the library does not hide the signal."""
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        interrupted_import(number)


def test_other_failures_pass() -> None:
    """A missing library is no interruption, and neither is any other fault."""
    for error in (ImportError("no such library"), ValueError("a fault")):
        with pytest.raises(type(error), match=str(error)), stopped_by_signals():
            raise error


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As in a program that a shell has started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopped_by_signals():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
