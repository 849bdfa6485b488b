"""Tests of the batcher: shared calls, results per caller, limits, errors and closing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline.batcher import Batcher, BatcherClosed

TIMEOUT_S = 30.0


class GatedBackbone:
    """Backbone that records its calls and, while the gate is closed, blocks in each of them."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: list[int] = []
        self._busy = threading.Lock()
        self.error: Exception | None = None
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(crops))
        self.threads.append(threading.get_ident())
        assert self._busy.acquire(blocking=False), "two calls overlap"
        self.entered.release()
        try:
            assert self.open.wait(TIMEOUT_S)
        finally:
            self._busy.release()
        if self.error is not None:
            raise self.error
        return np.asarray(crops.reshape(len(crops), -1).mean(axis=1, keepdims=True), np.float32)

    def occupy(self, batcher: Batcher) -> Future[NDArray[np.float32]]:
        """Close the gate and keep the backbone busy with one crop, so that later requests wait."""
        self.open.clear()
        first = batcher.submit(crops_of(0))
        assert self.entered.acquire(timeout=TIMEOUT_S)
        return first


class Caller(threading.Thread):
    """Thread that announces a request, and makes it when `go` is set, if it has crops."""

    def __init__(self, batcher: Batcher, *values: int) -> None:
        super().__init__(daemon=True)
        self.result: list[float] = []
        self.go = threading.Event()
        self._batcher = batcher
        self._values = values
        self._announced = threading.Event()
        self.start()
        assert self._announced.wait(TIMEOUT_S)

    def run(self) -> None:
        with self._batcher.announce():
            self._announced.set()
            assert self.go.wait(TIMEOUT_S)
            if self._values:
                self.result = self._batcher.features(crops_of(*self._values)).ravel().tolist()

    def end(self) -> None:
        self.go.set()
        self.join(TIMEOUT_S)


def crops_of(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


@pytest.fixture
def backbone() -> Iterator[GatedBackbone]:
    backbone = GatedBackbone()
    yield backbone
    backbone.open.set()


def test_single_request_runs_at_once(backbone: GatedBackbone) -> None:
    """A request does not wait for others if none is announced."""
    with Batcher(backbone) as batcher:
        assert batcher.features(crops_of(7, 9)).ravel().tolist() == [7, 9]
    assert backbone.sizes == [2]


def test_waiting_requests_share_a_call(backbone: GatedBackbone) -> None:
    """Requests that arrive while the backbone is busy share one call; each gets the rows of its own crops."""
    with Batcher(backbone) as batcher:
        backbone.occupy(batcher)
        waiting = [batcher.submit(crops_of(*values)) for values in ((1,), (2, 3, 4), (5, 6))]
        backbone.open.set()
        results = [future.result(TIMEOUT_S).ravel().tolist() for future in waiting]
    assert results == [[1], [2, 3, 4], [5, 6]]
    assert backbone.sizes == [1, 6]


def test_request_waits_for_announced_requests(backbone: GatedBackbone) -> None:
    """While the clock stands still, a request waits for the announced requests and shares their call."""
    with Batcher(backbone, clock=lambda: 0.0) as batcher:
        callers = [Caller(batcher, 1), Caller(batcher, 2, 3)]
        with batcher.announce():
            early = batcher.submit(crops_of(9))
        callers[1].go.set()
        assert not early.done()
        callers[0].go.set()
        assert early.result(TIMEOUT_S).tolist() == [[9]]
        for caller in callers:
            caller.end()
    assert [caller.result for caller in callers] == [[1], [2, 3]]
    assert backbone.sizes == [4]


def test_withdrawn_announcement_releases_the_others(backbone: GatedBackbone) -> None:
    """A caller that announced a request but found no face no longer holds up the other requests."""
    with Batcher(backbone, clock=lambda: 0.0) as batcher:
        caller = Caller(batcher)
        early = batcher.submit(crops_of(9))
        caller.end()
        assert early.result(TIMEOUT_S).tolist() == [[9]]


def test_wait_for_announced_requests_is_limited(backbone: GatedBackbone) -> None:
    """After `wait_s` a request runs without the requests that are still only announced."""
    times = iter([0.0, 0.001, 0.0051])
    with Batcher(backbone, wait_s=0.005, clock=lambda: next(times)) as batcher:
        caller = Caller(batcher)
        assert batcher.features(crops_of(9)).tolist() == [[9]]
        caller.end()
    assert next(times, None) is None


def test_full_call_does_not_wait(backbone: GatedBackbone) -> None:
    """Once `max_crops` crops wait, they run without waiting for announced requests."""
    with Batcher(backbone, max_crops=2, clock=lambda: 0.0) as batcher:
        caller = Caller(batcher)
        assert batcher.features(crops_of(8, 9)).ravel().tolist() == [8, 9]
        caller.end()


def test_closing_does_not_wait_for_announced_requests(backbone: GatedBackbone) -> None:
    """A request that still waits for announced ones fails when the batcher is closed."""
    batcher = Batcher(backbone, clock=lambda: 0.0)
    with batcher:
        caller = Caller(batcher)
        waiting = batcher.submit(crops_of(1))
    with pytest.raises(BatcherClosed):
        waiting.result(TIMEOUT_S)
    caller.end()
    assert backbone.sizes == []


def test_call_has_at_most_max_crops(backbone: GatedBackbone) -> None:
    """Waiting requests form calls of at most `max_crops`, in order; a larger request is split."""
    with Batcher(backbone, max_crops=4) as batcher:
        backbone.occupy(batcher)
        waiting = [
            batcher.submit(crops_of(*values)) for values in ((1, 2), (3, 4), (5,), tuple(range(10, 19)))
        ]
        backbone.open.set()
        results = [future.result(TIMEOUT_S).ravel().tolist() for future in waiting]
    assert results == [[1, 2], [3, 4], [5], list(range(10, 19))]
    assert backbone.sizes == [1, 4, 1, 4, 4, 1]


def test_many_threads_get_their_own_results(backbone: GatedBackbone) -> None:
    """With many callers each result belongs to its request, and no two calls overlap."""
    results: dict[int, list[list[float]]] = {}

    def request(batcher: Batcher, value: int) -> None:
        results[value] = [batcher.features(crops_of(value, value + 1)).ravel().tolist() for _ in range(20)]

    with Batcher(backbone, max_crops=6, max_waiting=3) as batcher:
        threads = [threading.Thread(target=request, args=(batcher, value)) for value in range(0, 200, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert results == {value: [[value, value + 1]] * 20 for value in range(0, 200, 20)}
    assert max(backbone.sizes) <= 6


def test_single_request_runs_on_its_own_thread(backbone: GatedBackbone) -> None:
    """Without others there is no other thread to wait for; requests meanwhile share the next call."""
    with Batcher(backbone) as batcher:
        backbone.open.clear()
        alone = Caller(batcher, 7)
        alone.go.set()
        assert backbone.entered.acquire(timeout=TIMEOUT_S)
        waiting = [batcher.submit(crops_of(value)) for value in (1, 2)]
        backbone.open.set()
        alone.end()
        assert [future.result(TIMEOUT_S).ravel().tolist() for future in waiting] == [[1], [2]]
    assert alone.result == [7]
    assert backbone.sizes == [1, 2]
    assert backbone.threads[0] == alone.ident != backbone.threads[1]


def test_closing_waits_for_a_request_on_its_own_thread(backbone: GatedBackbone) -> None:
    """After `close` no call is running, because the engine is closed next."""
    batcher = Batcher(backbone).__enter__()
    backbone.open.clear()
    alone = Caller(batcher, 7)
    alone.go.set()
    assert backbone.entered.acquire(timeout=TIMEOUT_S)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    backbone.open.set()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    alone.end()
    assert alone.result == [7]
    with pytest.raises(BatcherClosed):
        batcher.features(crops_of(1))


def test_full_queue_blocks_the_caller(backbone: GatedBackbone) -> None:
    """With `max_waiting` requests waiting, another caller blocks until there is room."""
    with Batcher(backbone, max_waiting=2) as batcher:
        backbone.occupy(batcher)
        for value in (1, 2):
            batcher.submit(crops_of(value))
        served = threading.Event()

        def request() -> None:
            batcher.features(crops_of(3))
            served.set()

        late = threading.Thread(target=request)
        late.start()
        assert backbone.sizes == [1]
        assert not served.is_set()
        backbone.open.set()
        assert served.wait(TIMEOUT_S)
        late.join(TIMEOUT_S)
    assert sum(backbone.sizes) == 4


def test_engine_error_is_raised_by_every_request_of_the_call(backbone: GatedBackbone) -> None:
    """If the backbone fails for every request, all raise its error; the next call succeeds."""
    with Batcher(backbone) as batcher:
        first = backbone.occupy(batcher)
        waiting = [batcher.submit(crops_of(value)) for value in (1, 2)]
        backbone.error = RuntimeError("the device is gone")
        backbone.open.set()
        for future in (first, *waiting):
            with pytest.raises(RuntimeError, match="the device is gone"):
                future.result(TIMEOUT_S)
        backbone.error = None
        assert batcher.features(crops_of(5)).tolist() == [[5]]


def test_crops_that_the_backbone_fails_on_cost_the_others_nothing() -> None:
    """A shared call that fails is repeated for each request alone; only the culprit raises the error."""
    called, may_continue = threading.Event(), threading.Event()

    def backbone(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        called.set()
        assert may_continue.wait(TIMEOUT_S)
        if (crops == 13).any():
            raise RuntimeError("not finite")
        return crops[:, :1, 0, 0].astype(np.float32)

    with Batcher(backbone) as batcher:
        first = batcher.submit(crops_of(0))
        assert called.wait(TIMEOUT_S)
        good, bad, other = (batcher.submit(crops_of(value)) for value in (1, 13, 2))
        may_continue.set()
        results = [future.result(TIMEOUT_S).tolist() for future in (first, good, other)]
        assert results == [[[0]], [[1]], [[2]]]
        with pytest.raises(RuntimeError, match="not finite"):
            bad.result(TIMEOUT_S)


def test_crops_of_another_size_run_in_their_own_call(backbone: GatedBackbone) -> None:
    """Crops that cannot be concatenated do not make the other requests fail."""
    with Batcher(backbone) as batcher:
        backbone.occupy(batcher)
        small = batcher.submit(crops_of(1, 2))
        large = batcher.submit(np.full((1, 8, 8, 3), 3, np.uint8))
        backbone.open.set()
        assert small.result(TIMEOUT_S).ravel().tolist() == [1, 2]
        assert large.result(TIMEOUT_S).ravel().tolist() == [3]


def test_cancelled_request_is_not_run(backbone: GatedBackbone) -> None:
    """The crops of a cancelled request do not reach the backbone."""
    with Batcher(backbone) as batcher:
        backbone.occupy(batcher)
        assert batcher.submit(crops_of(1)).cancel()
        kept = batcher.submit(crops_of(2))
        backbone.open.set()
        assert kept.result(TIMEOUT_S).tolist() == [[2]]
    assert backbone.sizes == [1, 1]


def test_wrong_number_of_features_is_an_error() -> None:
    """A backbone that returns more rows than crops raises an error."""
    broken = Batcher(lambda crops: np.zeros((len(crops) + 1, 2), np.float32))
    with broken as batcher, pytest.raises(RuntimeError, match="3 features for 2 crops"):
        batcher.features(crops_of(1, 2))


def test_closing_fails_waiting_requests(backbone: GatedBackbone) -> None:
    """Closing lets the running call finish; waiting and later requests raise `BatcherClosed`."""
    with Batcher(backbone) as batcher:
        first = backbone.occupy(batcher)
        waiting = batcher.submit(crops_of(1))
        closing = threading.Thread(target=batcher.close)
        closing.start()
        with pytest.raises(BatcherClosed):
            waiting.result(TIMEOUT_S)
        backbone.open.set()
        closing.join(TIMEOUT_S)
        assert first.result(TIMEOUT_S).tolist() == [[0]]
        with pytest.raises(BatcherClosed):
            batcher.submit(crops_of(2))


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3)])
def test_request_without_a_batch_is_refused(backbone: GatedBackbone, shape: tuple[int, ...]) -> None:
    """An empty batch, or one crop instead of a batch, raises an error at once."""
    with Batcher(backbone) as batcher, pytest.raises(ValueError, match="N at least 1"):
        batcher.submit(np.zeros(shape, np.uint8))


def test_limits_are_checked(backbone: GatedBackbone) -> None:
    """A batch size below 1 or a negative waiting time raises an error."""
    with pytest.raises(ValueError, match="at least 1"):
        Batcher(backbone, max_crops=0)
    with pytest.raises(ValueError, match="wait_s"):
        Batcher(backbone, wait_s=-1)
