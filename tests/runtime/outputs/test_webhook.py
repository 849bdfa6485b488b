"""Webhook: real requests to a local server that refuses, fails, is slow or checks the signature."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runtime.messages import StreamMessage
from runtime.outputs.webhook import Webhook, WebhookOptions, parse_secret
from streams.input.reader import Backoff
from tests.support.wire import make_broadcaster, verdict

TIMEOUT_S = 30.0
FAST = Backoff(first_s=0.01, max_s=0.02)
SECRET = b"a secret of 24 bytes...."


class Receiver(ThreadingHTTPServer):
    """Server that records requests and answers with the next of the given status codes, then with 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.requests: queue.SimpleQueue[tuple[dict[str, str], bytes]] = queue.SimpleQueue()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=hidden"

    def next(self) -> dict[str, Any]:
        """Return the body of the next request."""
        body: dict[str, Any] = json.loads(self.requests.get(timeout=TIMEOUT_S)[1])
        return body


class Handler(BaseHTTPRequestHandler):
    """Recording and answering of one request; the answer 0 means none until the server is released."""

    server: Receiver

    def do_POST(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.put(({name.lower(): value for name, value in self.headers.items()}, body))
        status = self.server.answers.pop(0) if self.server.answers else 204
        if not status:
            self.server.released.wait(TIMEOUT_S)
            self.close_connection = True
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://192.0.2.1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Running receiver."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join(TIMEOUT_S)


@pytest.fixture
def connect(receiver: Receiver) -> Iterator[Callable[..., tuple[Webhook, Any]]]:
    """Function that returns a webhook to the receiver, and a broadcaster with it as a sink."""
    webhooks: list[Webhook] = []

    def connected(*, secret: bytes | None = None, timeout_s: float = TIMEOUT_S) -> tuple[Webhook, Any]:
        options = WebhookOptions(url=receiver.url, secret=secret)
        webhook = Webhook(options, backoff=FAST, timeout_s=timeout_s)
        webhooks.append(webhook)
        return webhook, make_broadcaster(sinks=[webhook])

    yield connected
    for webhook in webhooks:
        webhook.close(timeout_s=0.1)


def test_a_change_is_posted_with_a_signature(
    connect: Callable[..., tuple[Webhook, Any]], receiver: Receiver
) -> None:
    """The body is the message; the signature is that of Standard Webhooks, computed here by itself."""
    _, broadcaster = connect(secret=SECRET)
    broadcaster.publish(verdict())
    headers, body = receiver.requests.get(timeout=TIMEOUT_S)
    assert json.loads(body)["state"] == "fake"
    assert headers["content-type"] == "application/json"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body.decode()}"
    expected = base64.b64encode(hmac.new(SECRET, signed.encode(), hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_only_changes_are_posted(connect: Callable[..., tuple[Webhook, Any]], receiver: Receiver) -> None:
    """Verdicts that repeat the state of a face are not. There is no signature without a secret."""
    webhook, broadcaster = connect()
    for message in (
        StreamMessage(stream="cam", state="live"),
        verdict(state="real", p_fake=0.1),
        verdict(state="real", p_fake=0.2),
        verdict(face=2),
        verdict(state="real", p_fake=0.1),
        verdict(state="stale", latency_ms=None),
    ):
        broadcaster.publish(message)
    webhook.close()
    received = [receiver.requests.get(timeout=TIMEOUT_S) for _ in range(4)]
    assert [json.loads(body)["seq"] for _, body in received] == [1, 2, 4, 6]
    assert receiver.requests.empty()
    assert not any("webhook-signature" in headers for headers, _ in received)


def test_a_failure_is_retried_in_order_and_logged_once(
    connect: Callable[..., tuple[Webhook, Any]], receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """500 and 429 are tried again with the same id; one line reports each cause, one the recovery."""
    webhook, broadcaster = connect()
    receiver.answers = [500, 500, 429, 500]
    broadcaster.publish(verdict())
    broadcaster.publish(verdict(face=2))
    received = [receiver.requests.get(timeout=TIMEOUT_S) for _ in range(6)]
    webhook.close()
    assert [json.loads(body)["face"] for _, body in received] == [1, 1, 1, 1, 1, 2]
    assert len({headers["webhook-id"] for headers, _ in received}) == 2
    assert webhook.lost == 0
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 3, lines
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("status", [400, 401, 404, 410, 302])
def test_a_refusal_is_not_repeated(
    connect: Callable[..., tuple[Webhook, Any]],
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """Each change is sent once and counted as lost; the refusal is logged once."""
    webhook, broadcaster = connect()
    receiver.answers = [status, status]
    for face in (1, 2, 3):
        broadcaster.publish(verdict(face=face))
    assert [receiver.next()["face"] for _ in range(3)] == [1, 2, 3]
    webhook.close()
    assert webhook.lost == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_server_that_never_answers_holds_up_nothing(
    connect: Callable[..., tuple[Webhook, Any]], receiver: Receiver
) -> None:
    """Publishing returns at once, the queue is bounded, and closing does not wait."""
    webhook, broadcaster = connect()
    receiver.answers = [0]
    for face in range(2000):
        broadcaster.publish(verdict(face=face))
    assert receiver.next()["face"] == 0
    webhook.close(timeout_s=0.0)
    assert webhook.lost >= 1998


def test_a_timeout_is_retried(connect: Callable[..., tuple[Webhook, Any]], receiver: Receiver) -> None:
    """A request without an answer is sent again."""
    _, broadcaster = connect(timeout_s=0.2)
    receiver.answers = [0]
    broadcaster.publish(verdict())
    assert [receiver.next()["seq"], receiver.next()["seq"]] == [1, 1]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_that_never_ends_is_a_timeout(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """The limit holds for the whole answer and the handshake: bytes that arrive do not extend it."""
    sent = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nX-Long: " if scheme == "http" else b"\x16\x03\x03\x40\x00"
            )
            while not sent.wait(0.02):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        threads = []
        options = WebhookOptions(url=f"{scheme}://127.0.0.1:{server.getsockname()[1]}/")
        webhook = Webhook(options, backoff=FAST, timeout_s=0.3)
        make_broadcaster(sinks=[webhook]).publish(verdict())
        # The second connection is that of the next attempt.
        for _ in range(2):
            thread = threading.Thread(target=drip, args=(server.accept()[0],))
            thread.start()
            threads.append(thread)
        webhook.finish()
        webhook.close(timeout_s=TIMEOUT_S)
        sent.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert [record.getMessage() for record in caplog.records] == [
        f"webhook {options.shown}: no answer within 0.3 s; trying again until it succeeds",
        f"webhook {options.shown}: 1 messages were lost",
    ]


def test_no_server_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection is tried again until the end."""
    webhook = Webhook(WebhookOptions(url="http://127.0.0.1:9/"), backoff=FAST)
    make_broadcaster(sinks=[webhook]).publish(verdict())
    while not caplog.records:
        threading.Event().wait(0.01)
    webhook.close(timeout_s=TIMEOUT_S)
    assert webhook.lost == 1
    assert [record.getMessage() for record in caplog.records] == [
        "webhook http://127.0.0.1:9: connection refused; trying again until it succeeds",
        "webhook http://127.0.0.1:9: 1 messages were lost",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://example.org",
        "http://",
        "https://a b/",
        "http://h:x/",
        "https://u:p@h/",
        "http://ä/",
        "https://a..b/x",
        f"https://{'a' * 64}.org/",
    ],
)
def test_an_unusable_address_is_refused(url: str) -> None:
    """The error says what to write, and does not repeat the address."""
    with pytest.raises(ValueError, match="address") as caught:
        WebhookOptions(url=url)
    assert not url or "u:p" not in str(caught.value)


def test_secrets() -> None:
    """`whsec_` introduces Base64; anything else is the key itself. Neither appears in a representation."""
    encoded = base64.b64encode(SECRET).decode()
    assert parse_secret(f" whsec_{encoded}\n") == SECRET == parse_secret(f"{SECRET.decode()}\n")
    with pytest.raises(ValueError, match="Base64"):
        parse_secret("whsec_%%%")
    with pytest.raises(ValueError, match="shorter"):
        WebhookOptions(url="http://h/", secret=b"short")
    assert "secret" not in repr(WebhookOptions(url="http://h/secret", secret=SECRET))
