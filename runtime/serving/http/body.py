"""Body of an HTTP request, received no faster than its handler reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

# Received bytes that may wait for the handler; then the client has to wait.
BUFFER_BYTES = 256 * 1024
# A client that sends nothing of an announced body for this long is disconnected.
IDLE_TIMEOUT_S = 20.0


class BodyTooLong(ValueError):
    """A body is longer than the handler accepts."""


class RequestBody:
    """Body of an HTTP request, as an asynchronous iterator over its parts.

        async for part in request.body: ...
        offer = await request.body.read(max_bytes=64 * 1024)

    At most `BUFFER_BYTES` and one received part wait in memory; then the transport is paused.

    Args:
        length: Length stated by the client in bytes; 0 without a body.
        transport: Transport that is paused while the handler is slow; None in tests without one.
        idle_timeout_s: Time in seconds without data after which reading fails.
    """

    def __init__(
        self,
        length: int = 0,
        transport: asyncio.ReadTransport | None = None,
        *,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        self.length = length
        self._transport = transport
        self._idle_timeout_s = idle_timeout_s
        self._missing = length
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._paused = False
        self._lost = False
        self._closed = False
        self._changed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if not self._missing:
                raise StopAsyncIteration
            if self._lost:
                raise ConnectionResetError("the client left before it had sent the whole body")
            self._changed.clear()
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._changed.wait()
            except TimeoutError as error:
                raise ConnectionResetError("the client stopped to send the body") from error
        part = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._resume()
        return part

    async def read(self, *, max_bytes: int) -> bytes:
        """Return the whole body.

        Args:
            max_bytes: Longest body that is read.

        Raises:
            BodyTooLong: The body is longer.
            ConnectionResetError: The client left, or stopped to send.
        """
        if self.length > max_bytes:
            raise BodyTooLong(f"the body has {self.length} bytes; at most {max_bytes} are accepted")
        return b"".join([part async for part in self])

    def feed(self, data: bytes) -> None:
        """Add received bytes; those after the stated length are dropped."""
        if self._closed:
            return
        data = data[: self._missing]
        self._missing -= len(data)
        if data:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.set()
        if self._waiting_bytes > BUFFER_BYTES and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def lose(self) -> None:
        """Note that the client has left; what has been received can still be read."""
        self._lost = True
        self._changed.set()

    def close(self) -> None:
        """Drop what has not been read, and whatever the client still sends."""
        self._closed = True
        self._waiting.clear()
        self._resume()

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
