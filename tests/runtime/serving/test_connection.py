"""Limits on what a client sends, and the head of its request."""

from __future__ import annotations

import pytest

from runtime.serving.connection import MAX_HEAD_BYTES, IncomingBudget, RequestHead

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


def test_a_budget_is_a_burst_that_fills_up_again() -> None:
    """Spending is allowed up to the burst, and then at the rate."""
    budget = IncomingBudget(burst=100, per_s=10)
    assert budget.spend(100, 0.0)
    assert budget.spend(10, 1.0)
    assert not budget.spend(11, 2.0)
    assert budget.spend(100, 1000.0)
    assert not budget.spend(1, 1000.0)


def test_the_head_is_collected_from_pieces() -> None:
    """The head is complete at its empty line; what follows is returned apart."""
    head = RequestHead()
    for byte in GET + b"\r":
        assert head.feed(bytes([byte])) is None
    assert head.feed(b"\nrest") == (GET + b"\r\n", b"rest")
    assert not head.has_body


@pytest.mark.parametrize(
    ("header", "has_body"),
    [
        (b"Content-Length: 5", True),
        (b"content-length:  0", False),
        (b"TRANSFER-ENCODING: chunked", True),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked", True),
        (b"Content-Length: 5\r\nContent-Length: 5", True),
        (b"Content-Length: nonsense", True),
    ],
)
def test_headers_of_a_body_are_removed(header: bytes, has_body: bool) -> None:
    """The parser never sees a body; whether there is one is remembered."""
    head = RequestHead()
    assert head.feed(GET + header + b"\r\nA: b\r\n\r\nhello") == (GET + b"A: b\r\n\r\n", b"hello")
    assert head.has_body is has_body


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\n", b"\r\n\r\n", b"OPTIONS * RTSP/1.0\r\n", GET + b"x" * MAX_HEAD_BYTES]
)
def test_other_protocols_and_endless_heads_are_passed_on(data: bytes) -> None:
    """The parser refuses them at once, with its own answer."""
    found = RequestHead().feed(data)
    assert found is not None
    assert b"".join(found) == data
