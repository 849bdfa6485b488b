"""Connection of one client, with a limit on what it sends, and responses also to requests with a body.

Without this, websockets accepts any number of empty messages, stores a pong for every ping even if the client
does not read them, and fails on a request with a body or with data after it.
"""

from __future__ import annotations

import asyncio
import logging
import re

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode
from websockets.protocol import State

from runtime.serving.access.identity import Identity
from runtime.serving.http.body import RequestBody

logger = logging.getLogger(__name__)

# Clients only need to send pongs and a close frame.
BURST_BYTES = 16 * 1024
BYTES_PER_S = 512
# Time for the close frame to be sent, which fails if the client does not read.
CLOSE_TIMEOUT_S = 0.4
MAX_HEAD_BYTES = 64 * 1024
# Longest wait for the head of a request.
HEAD_TIMEOUT_S = 5.0

_BODY_HEADERS = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:[^\r\n]*(?=\r\n)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([0-9]{1,15})[ \t]*", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect[ \t]*:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_HTTP = re.compile(rb"[^\r\n]* HTTP/1\.[01]\r\n")


class IncomingBudget:
    """Bytes that a client may send: a burst, which is refilled at a constant rate.

    Args:
        burst: Bytes that may be sent at once.
        per_s: Bytes that become available each second, up to `burst`.
    """

    def __init__(self, burst: int = BURST_BYTES, per_s: float = BYTES_PER_S) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._last_s: float | None = None

    def spend(self, size: int, now_s: float) -> bool:
        """Subtract received bytes; return whether the budget covers them.

        Args:
            size: Number of bytes.
            now_s: Monotonic time in seconds.
        """
        if self._last_s is not None:
            self._left = min(self._burst, self._left + self._per_s * max(0.0, now_s - self._last_s))
        self._last_s = now_s
        self._left -= size
        return self._left >= 0


class RequestHead:
    """Head of an HTTP request, collected from the bytes received.

    Attributes:
        has_body: Whether the request announces a body. The headers that do so are removed from the head.
        length: Length of the body in bytes; None if it is not stated, or stated twice.
        expects_continue: Whether the client waits for `100 Continue` before it sends the body.
    """

    def __init__(self) -> None:
        self.has_body = False
        self.length: int | None = 0
        self.expects_continue = False
        self._received = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Add received bytes.

        Returns:
            The head, and the bytes after it; None while the head is incomplete. Anything but HTTP/1 is
            returned unchanged, for the parser to refuse.
        """
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        first_line, line_end, _ = self._received.partition(b"\n")
        if not end:
            foreign = line_end and not _HTTP.fullmatch(first_line + line_end)
            return (self.flush(), b"") if foreign or len(self._received) > MAX_HEAD_BYTES else None
        found = _BODY_HEADERS.findall(head + b"\r\n")
        lengths = [_LENGTH.fullmatch(header) for header in found]
        if found:
            first = lengths[0]
            self.length = int(first[1]) if first is not None and len(found) == 1 else None
        self.has_body = self.length != 0
        self.expects_continue = _CONTINUE.search(head + b"\r\n") is not None
        self._received = b""
        return _BODY_HEADERS.sub(b"", head + b"\r\n") + b"\r\n", rest

    def flush(self) -> bytes:
        """Return the bytes of an incomplete head."""
        received, self._received = self._received, b""
        return received


class ClientConnection(ServerConnection):
    """Connection that bounds what a client sends; used as `create_connection` of websockets.

    Attributes:
        identity: Sender, once the server has admitted it.
        address: Address of the client, once the server has determined it.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare for the request."""
        self.identity: Identity | None = None
        self.address = ""
        self._head = RequestHead()
        self._budget = IncomingBudget()
        self._early = b""
        self._body = RequestBody()
        # Not the timeout of websockets, which would end a long upload too.
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, transport.abort)  # type: ignore[attr-defined]
        super().connection_made(transport)

    @property
    def has_body(self) -> bool:
        """Whether the request has a body; it is discarded unless `receive_body` is called."""
        return self._head.has_body

    @property
    def body_length(self) -> int | None:
        """Length of the body in bytes; None if the client does not state it."""
        return self._head.length

    def receive_body(self) -> RequestBody:
        """Return the body of the request, and ask the client for it if it waits to be asked."""
        if self._head.expects_continue and self._body.length:
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._body

    def discard_body(self) -> None:
        """Drop what is left of the body."""
        self._body.close()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes."""
        if self.request is None:
            head = self._head.feed(data)
            if head is not None:
                self._head_timer.cancel()
                data, rest = head
                if self.body_length:
                    assert isinstance(self.transport, asyncio.Transport)
                    self._body = RequestBody(self.body_length, self.transport)
                    self._body.feed(rest)
                else:
                    self._early = rest
                super().data_received(data)
        elif self.protocol.state is State.CONNECTING:
            # The request is being answered. A client may send its body, or frames before it has the response.
            if self._body.length:
                self._body.feed(data)
            else:
                self._early += data[: BURST_BYTES - len(self._early)]
        elif self.protocol.state is not State.OPEN:
            super().data_received(data)
        elif self._budget.spend(len(data) + len(self._early), self.loop.time()):
            early, self._early = self._early, b""
            super().data_received(early + data)
        else:
            self._refuse()

    def eof_received(self) -> None:
        """Handle the end of the client's data."""
        if self.request is None and (rest := self._head.flush()):
            super().data_received(rest)
        self._body.lose()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._head_timer.cancel()
        self._body.lose()
        super().connection_lost(exc)

    def _refuse(self) -> None:
        logger.info("a client sent too much data and is disconnected")
        self.transport.pause_reading()
        self.protocol.fail(CloseCode.POLICY_VIOLATION, "too much data")
        self.send_data()
        # A client that does not read would keep the connection open.
        self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)
