"""Bounded queue and thread of one output, so that its callers do not wait for an output that blocks.

with BackgroundWriter("recording", file.write, capacity=1000) as writer:
    writer.put(b"line")  # returns at once, from any thread
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class BackgroundWriter(Generic[Item]):
    """Output on a thread of its own; when its queue is full, the oldest items are lost and counted.

    Args:
        name: Name of the output, for its thread.
        write: Writes one item, on the thread. It may block. An item for which it raises OSError is lost.
        capacity: Maximum number of waiting items, at least 1.

    Attributes:
        closing: Set by `close`; a `write` that waits for something should then give up.

    Raises:
        ValueError: The capacity is below 1.
    """

    def __init__(self, name: str, write: Callable[[Item], None], *, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of an output must be at least 1, not {capacity}")
        self.name = name
        self.closing = threading.Event()
        self._write = write
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._lost = 0
        self._busy = False
        self._failed = False
        self._changed = threading.Condition()
        # A daemon: an output that blocks for ever must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl-C the program must not wait for an output; at a normal end every item is written.
        self.close(timeout_s=None if kind is None else 1.0)

    @property
    def idle(self) -> bool:
        """Whether everything has been written."""
        return not self._busy and not self._items

    @property
    def waiting(self) -> int:
        """Number of queued items."""
        return len(self._items)

    @property
    def lost(self) -> int:
        """Number of items not written: the queue was full, writing failed, or `close` timed out."""
        return self._lost

    def put(self, item: Item) -> None:
        """Queue an item for writing; returns at once. After `close` the item is lost."""
        with self._changed:
            if self.closing.is_set():
                self._lost += 1
                return
            self._items.append(item)
            if len(self._items) > self._capacity:
                self._items.popleft()
                self._lost += 1
            self._changed.notify()

    def finish(self) -> bool:
        """Accept no more items and return at once; the waiting ones are still written.

        Returns:
            Whether the thread has ended, so that no item waits any more.
        """
        with self._changed:
            self.closing.set()
            self._changed.notify()
        return not self._thread.is_alive()

    def close(self, *, timeout_s: float | None) -> bool:
        """Write the waiting items and stop; those that still wait after the timeout are lost.

        Args:
            timeout_s: Longest time to wait for the output; None for no limit.

        Returns:
            Whether the thread has ended; otherwise it is blocked in a call of `write`.
        """
        self.finish()
        self._thread.join(timeout_s)
        with self._changed:
            self._lost += len(self._items)
            self._items.clear()
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._items or self.closing.is_set())
                if not self._items:
                    return
                item = self._items.popleft()
                self._busy = True
            try:
                self._write(item)
            except OSError:
                self._lost += 1
            except Exception:
                self._lost += 1
                # Once only: the message may itself be an item of this output.
                if not self._failed:
                    self._failed = True
                    logger.exception("output %s: internal error", self.name)
