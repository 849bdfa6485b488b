"""Engine for the choice `auto`: TensorRT or OpenVINO until it fails, then onnxruntime."""

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
    """Engine that runs the first of two engines until it fails, and then the second.

    The call in which the first one fails is repeated on the second, so that no verdict is lost.

    Args:
        first: Preferred engine.
        make_second: Factory of the other engine; called when the first has failed.
    """

    def __init__(self, first: Engine, make_second: Callable[[], Engine]) -> None:
        self._first = first
        self._make_second = make_second
        self._running: Engine | None = None
        self._replaced: Engine | None = None
        self._switching = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the engine that is running."""
        return (self._running or self._first).name

    @property
    def precision(self) -> str:
        """Arithmetic of the engine that is running, as it states it."""
        return str(getattr(self._running or self._first, "precision", "fp32"))

    def __enter__(self) -> Self:
        with self._switching:
            if self._running is not None:
                raise RuntimeError("this engine is open already")
            try:
                self._running = self._first.__enter__()
            except EngineError as error:
                self._running = self._start_second(error)
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
            return self._replacement(running, error).features(crops)

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        running = self._open()
        try:
            return running.logits(windows)
        except EngineError as error:
            return self._replacement(running, error).logits(windows)

    def describe(self) -> str:
        return (self._running or self._first).describe()

    def _open(self) -> Engine:
        running = self._running
        if running is None:
            raise RuntimeError("this engine is closed; use it inside `with`")
        return running

    def _replacement(self, broken: Engine, error: EngineError) -> Engine:
        """Return the engine to use instead of a failed one; raise its error if there is none."""
        with self._switching:
            if self._running is None or (broken is self._running and broken is not self._first):
                raise error
            if broken is self._running:
                self._running = self._start_second(error)
                # Closed on exit only, because another thread may still be in a call to it.
                self._replaced = broken
            return self._running

    def _start_second(self, error: EngineError) -> Engine:
        second = self._make_second().__enter__()
        reason = error.reason if isinstance(error, EngineUnavailable) else str(error)
        _log.warning("engine: %s from now on (%s)", second.describe(), reason)
        return second

    @staticmethod
    def _close(engine: Engine) -> None:
        try:
            engine.__exit__(None, None, None)
        except EngineError as error:
            # Its failure has been logged; an error on closing tells the user nothing more.
            _log.debug("%s", error)
