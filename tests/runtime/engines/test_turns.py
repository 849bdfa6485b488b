"""Tests of turns: how many threads are in at a time, and in which order."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from runtime.engines.cpu import Turns
from tests.support.waiting import wait_for

LIMIT_S = 10.0


def test_turns_are_given_in_order_to_as_many_threads_as_allowed() -> None:
    """Two of six are in at once; the others follow in the order in which they came."""
    turns = Turns(2)
    entered: list[int] = []
    leave = [threading.Event() for _ in range(6)]
    threads: list[threading.Thread] = []

    def has_entered(count: int) -> bool:
        return len(entered) >= count

    def work(number: int) -> None:
        with turns:
            entered.append(number)
            assert leave[number].wait(LIMIT_S)

    for number in range(6):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        # Whether a thread is waiting for its turn cannot be seen from outside.
        time.sleep(0.02)
    for number in range(6):
        expected = list(range(min(number + 2, 6)))
        wait_for(partial(has_entered, len(expected)), LIMIT_S)
        assert entered == expected
        leave[number].set()
    for thread in threads:
        thread.join(LIMIT_S)
    assert entered == list(range(6))


def test_an_error_gives_the_turn_back() -> None:
    """The next thread is not blocked, and the error is raised."""
    turns = Turns(1)
    for _ in range(2):
        with pytest.raises(KeyError), turns:
            raise KeyError


def test_a_turn_is_passed_on_and_cannot_be_overtaken() -> None:
    """A thread that leaves and comes back at once is behind the one that waited."""
    turns = Turns(1)
    order: list[str] = []

    def enter() -> None:
        with turns:
            order.append("other")

    with turns:
        other = threading.Thread(target=enter)
        other.start()
        wait_for(lambda: len(turns._waiting) == 1, LIMIT_S)
    with turns:
        order.append("first")
    other.join(LIMIT_S)
    assert order == ["other", "first"]


def test_no_turns_are_invalid() -> None:
    """There must be at least one."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Turns(0)
