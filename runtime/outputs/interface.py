"""Interface of the outputs beside the WebSocket, and the log of their failures.

An output is a sink of the broadcaster with a bounded queue and a thread of its own, so that a slow disk,
server or broker delays neither the detector nor the clients.
"""

from __future__ import annotations

import logging
from typing import Protocol

from runtime.serving.client_queue import EncodedMessage


class Output(Protocol):
    """Destination of published messages: the recording, webhook, MQTT, evidence or annotated video.

    Attributes:
        name: Short name, for logs and as a label of metrics.
    """

    name: str

    @property
    def lost(self) -> int:
        """Number of messages lost: the queue was full, or they could not be delivered."""

    def __call__(self, encoded: EncodedMessage) -> None:
        """Queue a message; returns at once, from any thread."""

    def finish(self) -> bool:
        """Accept no more messages and return at once, with whether the thread has ended."""

    def close(self, *, timeout_s: float | None) -> None:
        """Deliver the waiting messages and stop; those that still wait after the timeout are lost."""


class FailureLog:
    """Log of an output that fails: one line for each cause, and one when it works again.

    Args:
        logger: Logger of the output.
        target: What is written to, without credentials.
    """

    def __init__(self, logger: logging.Logger, target: str) -> None:
        self.reason: str | None = None
        """Why the output fails at present; None if it works."""
        self._logger = logger
        self._target = target
        self._logged: set[str] = set()
        self._reported_lost = 0

    def failed(self, reason: str, outcome: str = "trying again until it succeeds") -> None:
        """Log a failure, unless its cause has been logged since the output last worked.

        Args:
            reason: Cause without credentials, in one line.
            outcome: What happens next.
        """
        self.reason = reason
        if reason not in self._logged:
            self._logged.add(reason)
            self._logger.error("%s: %s; %s", self._target, reason, outcome)

    def succeeded(self, lost: int) -> None:
        """Log the recovery, if there was a failure.

        Args:
            lost: Number of messages lost so far.
        """
        if self.reason is not None:
            self.reason = None
            self._logged.clear()
            self._logger.warning(
                "%s: works again; %d messages were lost", self._target, lost - self._reported_lost
            )
            self._reported_lost = lost

    def closed(self, lost: int) -> None:
        """Log the messages that were lost and not reported yet, when the output has been closed.

        Args:
            lost: Number of messages lost so far.
        """
        if lost > self._reported_lost:
            self._logger.warning("%s: %d messages were lost", self._target, lost - self._reported_lost)
            self._reported_lost = lost
