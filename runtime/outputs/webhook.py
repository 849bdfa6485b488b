"""Webhook output: a signed POST request for each change of the state of a stream or face.

The requests follow the Standard Webhooks specification (https://www.standardwebhooks.com), for which there
are libraries in most languages: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, an
HMAC-SHA256 of `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import http.client
import logging
import random
import secrets
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from runtime.outputs.background_writer import BackgroundWriter
from runtime.outputs.changes import StateChanges
from runtime.outputs.interface import FailureLog
from runtime.serving.client_queue import EncodedMessage
from runtime.version import version
from streams.input.reader import Backoff

logger = logging.getLogger(__name__)

# Changes that may wait while the server does not answer; about 0.5 KB each.
CAPACITY = 1000
TIMEOUT_S = 10.0
BACKOFF = Backoff(first_s=1.0, max_s=60.0, jitter=0.5)
# Client errors that may pass; the others are not tried again.
TEMPORARY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
SECRET_PREFIX = "whsec_"
MIN_SECRET_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class WebhookOptions:
    """Receiver of the changes.

    Args:
        url: Address to send to, http or https. Its path and query may be secret and are not shown.
        secret: Key of the signature, at least 16 bytes; None to send without a signature.

    Raises:
        ValueError: The address or the secret cannot be used.
    """

    url: str = field(repr=False)
    secret: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if _host(self.url) is None:
            raise ValueError("not a web address; write https://host/path")
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("the address contains a user name; use a signature (a secret) instead")
        if self.secret is not None and len(self.secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret is shorter than {MIN_SECRET_BYTES} bytes")

    @property
    def shown(self) -> str:
        """Scheme, host and port of the address."""
        return f"{urlsplit(self.url).scheme}://{_host(self.url)}"


def parse_secret(text: str) -> bytes:
    """Return the key in a text: Base64 after `whsec_`, else the text itself.

    Args:
        text: Content of a file or an environment variable; white space around it is removed.

    Raises:
        ValueError: The Base64 is invalid.
    """
    text = text.strip()
    if not text.startswith(SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"the secret is not Base64 after {SECRET_PREFIX}") from None


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: `v1,` and the Base64 of the HMAC-SHA256.

    Args:
        secret: Key.
        message_id: Value of `webhook-id`.
        timestamp: Value of `webhook-timestamp`, Unix seconds.
        body: Body of the request.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class Webhook:
    """Sender of each change of state to a web server; an output.

    A request that is not answered with 2xx is repeated with growing delays, the later changes waiting behind
    it; up to `CAPACITY` wait, then the oldest are lost. After a client error (4xx) or a redirect it is not
    repeated, because the next answer would be the same.

    Args:
        options: Receiver and secret.
        backoff: Delays between attempts.
        timeout_s: Longest time in seconds from the request to the end of the answer's headers.
        wall: Unix time in seconds.
    """

    def __init__(
        self,
        options: WebhookOptions,
        *,
        backoff: Backoff = BACKOFF,
        timeout_s: float = TIMEOUT_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = "webhook"
        self._options = options
        self._backoff = backoff
        self._timeout_s = timeout_s
        self._wall = wall
        self._opener = urllib.request.build_opener(_NoRedirect, _LimitedHandler)
        self._changes = StateChanges()
        self._run = secrets.token_hex(8)
        self._failures = FailureLog(logger, f"webhook {options.shown}")
        self._writer: BackgroundWriter[EncodedMessage] = BackgroundWriter(
            "webhook", self._send, capacity=CAPACITY
        )

    def __call__(self, encoded: EncodedMessage) -> None:
        """Queue a message if it is a change; returns at once."""
        if self._changes.accepts(encoded.message):
            self._writer.put(encoded)

    @property
    def lost(self) -> int:
        """Number of changes that were not delivered."""
        return self._writer.lost

    def finish(self) -> bool:
        """Accept no more messages and return at once, with whether all have been sent or lost."""
        return self._writer.finish()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Send the waiting changes, each once, and stop.

        Args:
            timeout_s: Longest time to wait for the server; None for no limit.
        """
        self._writer.close(timeout_s=timeout_s)
        self._failures.closed(self.lost)

    def _send(self, encoded: EncodedMessage) -> None:
        """Send a change, trying again until it is accepted or refused for good, or the writer closes."""
        attempt = 0
        while True:
            attempt += 1
            status, reason = self._post(encoded)
            if status is not None and 200 <= status < 300:
                self._failures.succeeded(self.lost)
                return
            if status is not None and 300 <= status < 500 and status not in TEMPORARY:
                self._failures.failed(reason, "such changes are not sent again")
                raise OSError(reason)
            self._failures.failed(reason)
            if self._writer.closing.wait(self._backoff.delay_s(attempt, random.random())):
                raise OSError(reason)

    def _post(self, encoded: EncodedMessage) -> tuple[int | None, str]:
        """Send one request; return the status, None without an answer, and the reason of a failure."""
        message_id, timestamp = f"{self._run}-{encoded.seq}", int(self._wall())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"unmask/{version()}",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        if self._options.secret is not None:
            headers["webhook-signature"] = sign(self._options.secret, message_id, timestamp, encoded.data)
        with _Deadline(self._timeout_s) as deadline:
            request = _LimitedRequest(self._options.url, encoded.data, headers, method="POST")
            request.deadline = deadline
            status, reason = self._exchange(request)
        # An answer that was cut off looks like a complete one.
        return (None, f"no answer within {self._timeout_s:g} s") if deadline.passed else (status, reason)

    def _exchange(self, request: urllib.request.Request) -> tuple[int | None, str]:
        """Send a request and read the headers of the answer; return what `_post` does."""
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                return response.status, ""
        except urllib.error.HTTPError as error:
            with error:
                return error.code, f"the server answered {error.code}"
        except TimeoutError:
            return None, f"no answer within {self._timeout_s:g} s"
        except urllib.error.URLError as error:
            return None, _reason(error.reason)
        except (OSError, http.client.HTTPException) as error:
            return None, _reason(error)


class _Deadline:
    """Limit on the whole time of a request, at which its connection is shut down; a context manager.

    The timeout of urllib is that of each read: a server that sends a byte now and then never reaches it.
    """

    def __init__(self, timeout_s: float) -> None:
        self.passed = False
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._timer = threading.Timer(timeout_s, self._pass)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def watch(self, connection: socket.socket) -> None:
        """Shut a new connection down when the time is over."""
        with self._lock:
            # TLS takes the descriptor of the socket away before its handshake, but not that of a copy.
            self._connection = connection.dup()
            if self.passed:
                _shut_down(self._connection)

    def _pass(self) -> None:
        with self._lock:
            self.passed = True
            if self._connection is not None:
                _shut_down(self._connection)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the server has closed it
        connection.shutdown(socket.SHUT_RDWR)


class _LimitedRequest(urllib.request.Request):
    deadline: _Deadline


class _LimitedConnection(http.client.HTTPConnection):
    deadline: _Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _LimitedSecureConnection(http.client.HTTPSConnection, _LimitedConnection):
    """Connection with TLS, whose handshake begins once the deadline watches the connection."""


class _LimitedHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Handler of requests with a deadline."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request without TLS."""
        return self.do_open(partial(_connection, _LimitedConnection, req), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request with TLS."""
        return self.do_open(partial(_connection, _LimitedSecureConnection, req), req)


def _connection(
    kind: type[_LimitedConnection], request: urllib.request.Request, host: str, **options: Any
) -> _LimitedConnection:
    """Return a connection, not open yet, with the deadline of a request."""
    assert isinstance(request, _LimitedRequest)
    connection = kind(host, **options)
    connection.deadline = request.deadline
    return connection


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Handler that follows no redirect: the signed content is for the given address only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Return None, which turns the redirect into an error."""


def _host(url: str) -> str | None:
    """Return host and port of a web address; None if it is not one."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
        # An impossible host name fails here, not at every request.
        (parts.hostname or "").encode("idna")
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
        return None
    if not url.isprintable() or " " in url:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}{port}"


def _reason(error: object) -> str:
    """Return a failure without an answer in a few words; never the text of an answer."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"no valid answer ({type(error).__name__})"
