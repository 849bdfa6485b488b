"""Where the faces of all streams meet: one thread runs the backbone on all that waits at that moment.

A call waits for company only while another stream is known to be on its way, and only so long:

    with Batcher(engine.features) as batcher:
        with batcher.due():
            crops = look_for_faces(frame)
            features = batcher.features(crops)

What that is worth depends on the engine. On a GPU a call costs much the same for one face or for eight. On
two CPU cores a face costs 27 ms of their time alone and 25 among four (ResNeXt-50 at 112 pixels): little, but
while others are still looking for faces, waiting takes nothing from anyone either.
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
    """Says that the batcher was closed before, or while, it was asked."""

    def __str__(self) -> str:
        return "the batcher is closed"


@dataclass(frozen=True)
class _Request:
    crops: NDArray[np.uint8]
    arrived: float
    answer: Future[NDArray[np.float32]] = field(default_factory=Future)


class Batcher:
    """Runs the backbone for many callers: what waits when it is free goes in together, in the order it came.

    A lone stream's request runs at once; a batch forms from what came while the backbone was busy, and from
    what is announced with `due`. A request larger than `max_crops` is run in pieces of that size.

    Use it as a context manager; its thread lives inside.

    Args:
        backbone: uint8 RGB `(N, H, W, 3)` -> float32 `(N, D)`; called from one thread only.
        max_crops: The largest N of one call; it bounds the memory of a burst.
        max_waiting: Requests that may wait; a caller beyond them is held until there is room.
        wait_s: How long a request may wait for those that are due.
        clock: Gives seconds that never jump.
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
        # The threads that have announced a request and not made it yet.
        self._due: set[int] = set()
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="backbone", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def due(self) -> Iterator[None]:
        """Announce that this thread is about to ask: others may wait for it, until it does or leaves."""
        caller = threading.get_ident()
        with self._changed:
            self._due.add(caller)
        try:
            yield
        finally:
            with self._changed:
                self._due.discard(caller)
                self._changed.notify_all()

    def submit(self, crops: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        """Hand in crops and go on.

        Args:
            crops: uint8 RGB `(N, H, W, 3)`, N at least 1; not to be changed until the answer is there.

        Returns:
            The future of float32 `(N, D)`, row i belonging to crop i. It carries the engine's error if the
            call fails.

        Raises:
            BatcherClosed: It is closed, or was closed while this caller waited for room.
            ValueError: There is no crop, or it is not a batch of pictures.
        """
        if crops.ndim != 4 or len(crops) == 0:
            raise ValueError(f"crops must be (N, H, W, 3) with N at least 1, not {crops.shape}")
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._max_waiting)
            if self._closed:
                raise BatcherClosed
            request = _Request(crops, self._clock())
            self._waiting.append(request)
            self._due.discard(threading.get_ident())
            self._changed.notify_all()
        return request.answer

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone on crops, together with whatever else waits.

        Args:
            crops: uint8 RGB `(N, H, W, 3)`, N at least 1.

        Returns:
            float32 `(N, D)`, row i belonging to crop i.

        Raises:
            BatcherClosed: It is closed, or was closed before these crops had their turn.
            Exception: Whatever the backbone raised on the call that these crops were part of.
        """
        return self.submit(crops).result()

    def close(self) -> None:
        """End the thread after the call that it is in; who still waits is answered with `BatcherClosed`."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for request in left:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(BatcherClosed())
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            self._run(batch)

    def _take(self) -> list[_Request]:
        """Wait for requests and take, from the oldest on, as many as fit into one call; none once closed."""
        batch: list[_Request] = []
        count = 0
        with self._changed:
            # More than one round only if all that waited had been cancelled.
            while not batch:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                self._wait_for_company()
                if self._closed:
                    break
                while self._waiting and (not batch or count + len(self._waiting[0].crops) <= self._max_crops):
                    request = self._waiting.popleft()
                    if request.answer.set_running_or_notify_cancel():
                        batch.append(request)
                        count += len(request.crops)
                self._changed.notify_all()
        return batch

    def _wait_for_company(self) -> None:
        """Wait, holding the lock, until nobody is due, a call is full or the oldest has waited enough."""
        while self._due and self._waiting and not self._closed:
            left_s = self._waiting[0].arrived + self._wait_s - self._clock()
            full = sum(len(request.crops) for request in self._waiting) >= self._max_crops
            if full or left_s <= 0:
                return
            self._changed.wait(left_s)

    def _run(self, batch: list[_Request]) -> None:
        # Crops of different sizes cannot share a call; that is the second caller's mistake, not everyone's.
        if len({request.crops.shape[1:] for request in batch}) > 1:
            for request in batch:
                self._run([request])
            return
        crops = batch[0].crops if len(batch) == 1 else np.concatenate([request.crops for request in batch])
        try:
            parts = [
                self._backbone(crops[start : start + self._max_crops])
                for start in range(0, len(crops), self._max_crops)
            ]
            features = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if len(features) != len(crops):
                raise RuntimeError(f"the backbone gave {len(features)} features for {len(crops)} crops")
        except BaseException as error:  # noqa: BLE001  whoever waits must hear of it, whatever it is
            for request in batch:
                request.answer.set_exception(error)
            return
        end = 0
        for request in batch:
            start, end = end, end + len(request.crops)
            request.answer.set_result(features[start:end])
