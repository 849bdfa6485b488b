"""What `auto` runs where a GPU is: TensorRT as long as it works, else the CPU, with a word in the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EngineError, EngineUnavailable

if TYPE_CHECKING:
    from typing import Self

    from runtime.engines.interface import Engine

_log = logging.getLogger(__name__)


class FallbackEngine:
    """Runs the first of two engines until it fails, then the second; see `runtime.engines.factory.Engine`.

    The call that finds the first one broken is answered by the second: no verdict is lost, only time.

    Args:
        first: The one to prefer.
        make_second: Makes the other one; called when it is needed.
    """

    def __init__(self, first: Engine, make_second: Callable[[], Engine]) -> None:
        self._first = first
        self._make_second = make_second
        self._running: Engine | None = None
        self._replaced: Engine | None = None
        self._switching = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the engine that runs."""
        return (self._running or self._first).name

    def __enter__(self) -> Self:
        with self._switching:
            if self._running is not None:
                raise RuntimeError("this engine is open already")
            try:
                self._running = self._first.__enter__()
            except EngineError as error:
                self._running = self._second(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._switching:
            running, self._running = self._running, None
            replaced, self._replaced = self._replaced, None
            if replaced is not None:
                self._close(replaced)
            if running is not None:
                running.__exit__(kind, error, trace)

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        running = self._open()
        try:
            return running.features(crops)
        except EngineError as error:
            return self._after(running, error).features(crops)

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        running = self._open()
        try:
            return running.logits(windows)
        except EngineError as error:
            return self._after(running, error).logits(windows)

    def describe(self) -> str:
        return (self._running or self._first).describe()

    def _open(self) -> Engine:
        running = self._running
        if running is None:
            raise RuntimeError("this engine is closed; use it inside `with`")
        return running

    def _after(self, broken: Engine, error: EngineError) -> Engine:
        """Give the engine to ask instead of a broken one, or raise what broke it."""
        with self._switching:
            if self._running is None or (broken is self._running and broken is not self._first):
                raise error
            if broken is self._running:
                self._running = self._second(error)
                # Closed with the block: another thread may still be in a call to it.
                self._replaced = broken
            return self._running

    def _second(self, error: EngineError) -> Engine:
        second = self._make_second().__enter__()
        reason = error.reason if isinstance(error, EngineUnavailable) else str(error)
        _log.warning("engine: %s from now on (%s)", second.describe(), reason)
        return second

    @staticmethod
    def _close(engine: Engine) -> None:
        try:
            engine.__exit__(None, None, None)
        except EngineError as error:
            # It was given up because it broke; that it cannot be closed either is no news.
            _log.debug("%s", error)
