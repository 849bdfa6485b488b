"""The batcher: who waits together goes in together, everyone gets their own, and nobody waits in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline.batcher import Batcher, BatcherClosed

TIMEOUT_S = 30.0


class Gate:
    """A backbone that tells what it was given and, while shut, holds each call until it is let through."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(crops))
        self.threads.add(threading.get_ident())
        self.entered.release()
        assert self.open.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return crops.reshape(len(crops), -1).mean(axis=1, keepdims=True).astype(np.float32)

    def shut_in(self, batcher: Batcher) -> Future[NDArray[np.float32]]:
        """Occupy the backbone with one crop, so that what comes next has to wait."""
        self.open.clear()
        first = batcher.submit(crops_of(0))
        assert self.entered.acquire(timeout=TIMEOUT_S)
        return first


def crops_of(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def test_a_lone_request_runs_at_once(gate: Gate) -> None:
    """Nothing has to come along before a request is answered."""
    with Batcher(gate) as batcher:
        assert batcher.features(crops_of(7, 9)).ravel().tolist() == [7, 9]
    assert gate.sizes == [2]


def test_what_waits_goes_in_together_and_comes_back_to_its_owner(gate: Gate) -> None:
    """Requests that came while the backbone was busy share one call; each gets the rows of its own crops."""
    with Batcher(gate) as batcher:
        gate.shut_in(batcher)
        waiting = [batcher.submit(crops_of(*values)) for values in ((1,), (2, 3, 4), (5, 6))]
        gate.open.set()
        answers = [future.result(TIMEOUT_S).ravel().tolist() for future in waiting]
    assert answers == [[1], [2, 3, 4], [5, 6]]
    assert gate.sizes == [1, 6]


class Stream(threading.Thread):
    """Announces crops from a thread of its own, and hands them in when it is told to, if ever."""

    def __init__(self, batcher: Batcher, *values: int) -> None:
        super().__init__(daemon=True)
        self.answer: list[float] = []
        self.go = threading.Event()
        self._batcher = batcher
        self._values = values
        self._announced = threading.Event()
        self.start()
        assert self._announced.wait(TIMEOUT_S)

    def run(self) -> None:
        with self._batcher.due():
            self._announced.set()
            assert self.go.wait(TIMEOUT_S)
            if self._values:
                self.answer = self._batcher.features(crops_of(*self._values)).ravel().tolist()

    def end(self) -> None:
        self.go.set()
        self.join(TIMEOUT_S)


def test_who_is_due_is_waited_for(gate: Gate) -> None:
    """While the clock stands still, a request waits for the streams that are due, and shares their call."""
    with Batcher(gate, clock=lambda: 0.0) as batcher:
        streams = [Stream(batcher, 1), Stream(batcher, 2, 3)]
        with batcher.due():
            early = batcher.submit(crops_of(9))
        streams[1].go.set()
        assert not early.done()
        streams[0].go.set()
        assert early.result(TIMEOUT_S).tolist() == [[9]]
        for stream in streams:
            stream.end()
    assert [stream.answer for stream in streams] == [[1], [2, 3]]
    assert gate.sizes == [4]


def test_who_turns_out_to_have_nothing_is_not_waited_for(gate: Gate) -> None:
    """A stream that finds no face lets the others go."""
    with Batcher(gate, clock=lambda: 0.0) as batcher:
        stream = Stream(batcher)
        early = batcher.submit(crops_of(9))
        stream.end()
        assert early.result(TIMEOUT_S).tolist() == [[9]]


def test_nobody_is_waited_for_longer_than_the_deadline(gate: Gate) -> None:
    """When its time is over, a request runs without those that are still due."""
    times = iter([0.0, 0.001, 0.0051])
    with Batcher(gate, wait_s=0.005, clock=lambda: next(times)) as batcher:
        stream = Stream(batcher)
        assert batcher.features(crops_of(9)).tolist() == [[9]]
        stream.end()
    assert next(times, None) is None


def test_a_full_call_waits_for_nobody(gate: Gate) -> None:
    """Once as many crops wait as a call takes, there is no room for company."""
    with Batcher(gate, max_crops=2, clock=lambda: 0.0) as batcher:
        stream = Stream(batcher)
        assert batcher.features(crops_of(8, 9)).ravel().tolist() == [8, 9]
        stream.end()


def test_closing_waits_for_nobody_who_is_due(gate: Gate) -> None:
    """A request that waits for company is answered when the batcher closes."""
    batcher = Batcher(gate, clock=lambda: 0.0)
    with batcher:
        stream = Stream(batcher)
        waiting = batcher.submit(crops_of(1))
    with pytest.raises(BatcherClosed):
        waiting.result(TIMEOUT_S)
    stream.end()
    assert gate.sizes == []


def test_a_call_holds_at_most_max_crops(gate: Gate) -> None:
    """A burst is cut into calls of bounded size, in order; a request that is larger is run in pieces."""
    with Batcher(gate, max_crops=4) as batcher:
        gate.shut_in(batcher)
        waiting = [
            batcher.submit(crops_of(*values)) for values in ((1, 2), (3, 4), (5,), tuple(range(10, 19)))
        ]
        gate.open.set()
        answers = [future.result(TIMEOUT_S).ravel().tolist() for future in waiting]
    assert answers == [[1, 2], [3, 4], [5], list(range(10, 19))]
    assert gate.sizes == [1, 4, 1, 4, 4, 1]


def test_many_threads_get_their_own(gate: Gate) -> None:
    """Under a crowd of callers every answer belongs to its question, and one thread does all the work."""
    answers: dict[int, list[list[float]]] = {}

    def ask(batcher: Batcher, value: int) -> None:
        answers[value] = [batcher.features(crops_of(value, value + 1)).ravel().tolist() for _ in range(20)]

    with Batcher(gate, max_crops=6, max_waiting=3) as batcher:
        crowd = [threading.Thread(target=ask, args=(batcher, value)) for value in range(0, 200, 20)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(TIMEOUT_S)
    assert answers == {value: [[value, value + 1]] * 20 for value in range(0, 200, 20)}
    assert max(gate.sizes) <= 6
    assert len(gate.threads) == 1


def test_a_full_queue_holds_its_callers(gate: Gate) -> None:
    """Beyond `max_waiting`, a caller is held until there is room: a burst makes no memory grow."""
    with Batcher(gate, max_waiting=2) as batcher:
        gate.shut_in(batcher)
        for value in (1, 2):
            batcher.submit(crops_of(value))
        answered = threading.Event()
        late = threading.Thread(target=lambda: batcher.features(crops_of(3)) is not None and answered.set())
        late.start()
        assert gate.sizes == [1]
        assert not answered.is_set()
        gate.open.set()
        assert answered.wait(TIMEOUT_S)
        late.join(TIMEOUT_S)
    assert sum(gate.sizes) == 4


def test_an_engine_failure_reaches_everyone_in_the_call_and_nobody_else(gate: Gate) -> None:
    """All who shared a failed call get its error; the next call is answered again."""
    with Batcher(gate) as batcher:
        first = gate.shut_in(batcher)
        waiting = [batcher.submit(crops_of(value)) for value in (1, 2)]
        gate.error = RuntimeError("the device is gone")
        gate.open.set()
        for future in (first, *waiting):
            with pytest.raises(RuntimeError, match="the device is gone"):
                future.result(TIMEOUT_S)
        gate.error = None
        assert batcher.features(crops_of(5)).tolist() == [[5]]


def test_a_request_of_another_size_does_not_spoil_the_call(gate: Gate) -> None:
    """Crops that cannot be stacked with the others are run by themselves."""
    with Batcher(gate) as batcher:
        gate.shut_in(batcher)
        small = batcher.submit(crops_of(1, 2))
        large = batcher.submit(np.full((1, 8, 8, 3), 3, np.uint8))
        gate.open.set()
        assert small.result(TIMEOUT_S).ravel().tolist() == [1, 2]
        assert large.result(TIMEOUT_S).ravel().tolist() == [3]


def test_a_cancelled_request_is_left_out(gate: Gate) -> None:
    """What nobody waits for any more costs no backbone call."""
    with Batcher(gate) as batcher:
        gate.shut_in(batcher)
        assert batcher.submit(crops_of(1)).cancel()
        kept = batcher.submit(crops_of(2))
        gate.open.set()
        assert kept.result(TIMEOUT_S).tolist() == [[2]]
    assert gate.sizes == [1, 1]


def test_a_backbone_that_miscounts_is_an_error() -> None:
    """Rows that do not match the crops are never handed out."""
    miscounting = Batcher(lambda crops: np.zeros((len(crops) + 1, 2), np.float32))
    with miscounting as batcher, pytest.raises(RuntimeError, match="3 features for 2 crops"):
        batcher.features(crops_of(1, 2))


def test_closing_answers_who_still_waits(gate: Gate) -> None:
    """Closing lets the running call finish and tells the others; later requests are refused."""
    with Batcher(gate) as batcher:
        first = gate.shut_in(batcher)
        waiting = batcher.submit(crops_of(1))
        closing = threading.Thread(target=batcher.close)
        closing.start()
        with pytest.raises(BatcherClosed):
            waiting.result(TIMEOUT_S)
        gate.open.set()
        closing.join(TIMEOUT_S)
        assert first.result(TIMEOUT_S).tolist() == [[0]]
        with pytest.raises(BatcherClosed):
            batcher.submit(crops_of(2))


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3)])
def test_no_crops_are_a_mistake(gate: Gate, shape: tuple[int, ...]) -> None:
    """A request without crops, or that is one crop rather than a batch, is refused at once."""
    with Batcher(gate) as batcher, pytest.raises(ValueError, match="N at least 1"):
        batcher.submit(np.zeros(shape, np.uint8))


def test_bounds_are_checked(gate: Gate) -> None:
    """A batcher that could never run anything cannot be made."""
    with pytest.raises(ValueError, match="at least 1"):
        Batcher(gate, max_crops=0)
    with pytest.raises(ValueError, match="wait_s"):
        Batcher(gate, wait_s=-1)
