"""Batches of the face crops of all streams, computed in shared backbone calls, one at a time.

    with Batcher(engine.features) as batcher:
        with batcher.announce():
            crops = find_and_crop_faces(frame)
            features = batcher.features(crops)

A request waits for others only while another stream has announced one, and at most `wait_s`. The gain depends
on the engine. On a GPU, a call on eight crops costs about as much as a call on one. On two CPU cores, a crop
costs 27 ms of CPU time alone and 25 ms in a batch of four (ResNeXt-50 at 112 pixels). The gain there is
small, but the wait costs nothing while the other streams are still detecting faces.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

Backbone = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class BatcherClosed(RuntimeError):
    """The batcher was closed before or during the request."""

    def __str__(self) -> str:
        return "the batcher is closed"


@dataclass(frozen=True)
class _Request:
    crops: NDArray[np.uint8]
    arrived: float
    result: Future[NDArray[np.float32]] = field(default_factory=Future)


class Batcher:
    """Shared backbone of several streams; waiting requests are run in one call, in order of arrival.

    The request of a single stream runs at once, on its own thread. A batch forms from the requests that
    arrive while the backbone is busy, and from those announced with `announce`. A request larger than
    `max_crops` is split into several calls.

    Use it as a context manager, which starts and stops its thread.

    Args:
        backbone: Function from uint8 RGB `(N, H, W, 3)` to float32 `(N, D)`; no two calls overlap.
        max_crops: Largest N of one call; limits the memory of a burst.
        max_waiting: Largest number of waiting requests; further callers block until there is room.
        wait_s: Longest time in seconds that a request waits for announced ones.
        clock: Monotonic clock in seconds.

    Raises:
        ValueError: A limit is below 1, or `wait_s` is negative.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        max_crops: int = 16,
        max_waiting: int = 64,
        wait_s: float = 0.005,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_crops < 1 or max_waiting < 1:
            raise ValueError(f"max_crops and max_waiting must be at least 1, not {max_crops}, {max_waiting}")
        if not wait_s >= 0:
            raise ValueError(f"wait_s must be at least 0, not {wait_s}")
        self._backbone = backbone
        self._max_crops = max_crops
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._clock = clock
        # Threads that have announced a request and not made it yet.
        self._announced: set[int] = set()
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running = False
        self._thread = threading.Thread(target=self._work, name="backbone", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def announce(self) -> Iterator[None]:
        """Announce a request of this thread; others may wait for it until it is made or the block ends."""
        caller = threading.get_ident()
        with self._changed:
            self._announced.add(caller)
        try:
            yield
        finally:
            with self._changed:
                self._announced.discard(caller)
                self._changed.notify_all()

    def submit(self, crops: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Queue crops without waiting for their features.

        Args:
            crops: uint8 RGB `(N, H, W, 3)`, N at least 1; must not change until the future is done.

        Returns:
            Future of float32 `(N, D)`, row i belonging to crop i. It raises the error of a failed backbone
            call.

        Raises:
            BatcherClosed: The batcher is closed, or was closed while this caller waited for room.
            ValueError: There is no crop, or the array is not a batch of images.
        """
        _check(crops)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._max_waiting)
            if self._closed:
                raise BatcherClosed
            request = _Request(crops, self._clock())
            self._waiting.append(request)
            self._announced.discard(threading.get_ident())
            self._changed.notify_all()
        return request.result

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of crops, computed together with other waiting requests.

        Args:
            crops: uint8 RGB `(N, H, W, 3)`, N at least 1.

        Returns:
            float32 `(N, D)`, row i belonging to crop i.

        Raises:
            BatcherClosed: The batcher is closed, or was closed before these crops were run.
            Exception: Any error of the backbone on these crops. If a shared call fails, each request is run
                alone.
        """
        _check(crops)
        if not self._begin_alone():
            return self.submit(crops).result()
        try:
            return self._compute(crops)
        finally:
            self._end_run()

    def close(self) -> None:
        """Stop the thread after the current call; waiting requests fail with `BatcherClosed`."""
        self._fail_waiting()
        if self._thread.is_alive():
            self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def _begin_alone(self) -> bool:
        """Return whether to run a request on its caller's thread, because no other could share its call."""
        caller = threading.get_ident()
        with self._changed:
            if self._closed:
                raise BatcherClosed
            if self._running or self._waiting or self._announced - {caller}:
                return False
            self._announced.discard(caller)
            self._running = True
            return True

    def _end_run(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()

    def _fail_waiting(self) -> None:
        with self._changed:
            self._closed = True
            unserved = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for request in unserved:
            if request.result.set_running_or_notify_cancel():
                request.result.set_exception(BatcherClosed())

    def _work(self) -> None:
        try:
            while batch := self._take():
                try:
                    self._run(batch)
                finally:
                    self._end_run()
        finally:
            # Callers must not wait for a thread that has ended, whatever the cause.
            self._fail_waiting()

    def _take(self) -> list[_Request]:
        """Wait for requests and take the oldest ones that fit into one call; empty once closed."""
        batch: list[_Request] = []
        count = 0
        with self._changed:
            # Repeated only if all waiting requests had been cancelled.
            while not batch:
                self._changed.wait_for(lambda: self._closed or (self._waiting and not self._running))
                self._wait_for_announced()
                if self._closed:
                    break
                while self._waiting and (not batch or count + len(self._waiting[0].crops) <= self._max_crops):
                    request = self._waiting.popleft()
                    if request.result.set_running_or_notify_cancel():
                        batch.append(request)
                        count += len(request.crops)
                self._running = bool(batch)
                self._changed.notify_all()
        return batch

    def _wait_for_announced(self) -> None:
        """Wait until no request is announced, a call is full or the oldest has waited `wait_s`; lock held."""
        while self._announced and self._waiting and not self._closed:
            left_s = self._waiting[0].arrived + self._wait_s - self._clock()
            full = sum(len(request.crops) for request in self._waiting) >= self._max_crops
            if full or left_s <= 0:
                return
            self._changed.wait(left_s)

    def _run(self, batch: list[_Request]) -> None:
        # Crops of different sizes cannot share a call, and the error of one caller must not affect the
        # others.
        if len({request.crops.shape[1:] for request in batch}) > 1:
            for request in batch:
                self._run([request])
            return
        crops = batch[0].crops if len(batch) == 1 else np.concatenate([request.crops for request in batch])
        try:
            features = self._compute(crops)
        except BaseException as error:  # noqa: BLE001  raised by the caller
            if len(batch) == 1:
                batch[0].result.set_exception(error)
            else:
                # The crops of one stream may be the cause: the others get their features.
                for request in batch:
                    self._run([request])
            return
        end = 0
        for request in batch:
            start, end = end, end + len(request.crops)
            request.result.set_result(features[start:end])

    def _compute(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone, in several calls if there are too many crops for one."""
        outputs = [
            self._backbone(crops[start : start + self._max_crops])
            for start in range(0, len(crops), self._max_crops)
        ]
        features = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        if len(features) != len(crops):
            raise RuntimeError(f"the backbone returned {len(features)} features for {len(crops)} crops")
        return features


def _check(crops: NDArray[np.uint8]) -> None:
    if crops.ndim != 4 or len(crops) == 0:
        raise ValueError(f"crops must be (N, H, W, 3) with N at least 1, not {crops.shape}")
