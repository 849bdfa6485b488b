"""Pages of other origins are kept out, whatever name they come under, and programs are let in."""

from __future__ import annotations

import pytest

from runtime.serving.access import Access, Authority


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8765", "127.0.0.1", 8765),
        ("LocalHost", "localhost", None),
        ("[::1]:8765", "::1", 8765),
        ("camera-1.example", "camera-1.example", None),
    ],
)
def test_an_authority_is_read(text: str, host: str, port: int | None) -> None:
    """Host headers are taken apart as browsers write them."""
    assert Authority.parse(text) == Authority(host, port)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:b", "a:123456", "user@a", "a;b", "[::1", "a\nb"])
def test_what_is_no_authority_is_none(text: str) -> None:
    """Nothing else gets through to where it would be put into a header."""
    assert Authority.parse(text) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8765",
        "localhost:8765",
        "[::1]:8765",
        "unmask.localhost",
        "192.168.1.20:8765",
        "Studio:8765",
        None,
    ],
)
def test_own_names_and_addresses_are_answered_to(host: str | None) -> None:
    """Loopback names, the machine's own name and plain addresses cannot be rebound; HTTP/1.0 sends none."""
    assert Access(names=["studio"]).allows_host(host)


@pytest.mark.parametrize(
    "host", ["evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
)
def test_foreign_names_are_not_answered_to(host: str) -> None:
    """A page that made its own name point to this machine gets nothing (DNS rebinding)."""
    assert not Access(names=["studio"]).allows_host(host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "127.0.0.1:8765"),
        ("http://127.0.0.1:8765", "127.0.0.1:8765"),
        ("http://localhost:8765", "127.0.0.1:8765"),
        ("http://127.0.0.1:8765", "[::1]:8765"),
        ("http://[::1]:8765", "localhost:8765"),
        ("http://192.168.1.20:8765", "192.168.1.20:8765"),
        ("http://studio", "studio"),
        ("http://studio", "studio:80"),
        ("https://studio", "studio"),
        # A port forwarded to this machine under another number.
        ("http://localhost:9000", "localhost:9000"),
    ],
)
def test_own_pages_and_programs_may_connect(origin: str | None, host: str) -> None:
    """The pages that the server serves, under any of its names, and programs that are no browsers."""
    assert Access(names=["studio"]).allows_origin(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://evil.example:8765",
        "http://127.0.0.1:3000",
        "https://127.0.0.1",
        "http://192.168.1.20:8765",
        "http://localhost.evil.example:8765",
        "null",
        "file://",
        "chrome-extension://abcdefgh",
        "",
        "127.0.0.1:8765",
    ],
)
def test_other_pages_may_not_connect(origin: str) -> None:
    """A page elsewhere, on another port, in a file or in an extension is kept out by default."""
    assert not Access().allows_origin(origin, "127.0.0.1:8765")


def test_an_origin_can_be_let_in() -> None:
    """--allow-origin lets in that origin and no other, and the name it may be served under by a proxy."""
    access = Access(["https://Desk.example/", "http://127.0.0.1:3000", "http://plain.example:80"])
    host = "127.0.0.1:8765"
    assert access.allows_origin("https://desk.example", host)
    assert access.allows_origin("http://127.0.0.1:3000", host)
    assert access.allows_origin("http://plain.example", host)
    assert not access.allows_origin("http://desk.example", host)
    assert not access.allows_origin("https://desk.example:444", host)
    assert not access.allows_origin("null", host)
    assert access.allows_host("desk.example")
    assert not access.allows_host("example")


def test_files_and_everyone_can_be_let_in() -> None:
    """`null` is for pages opened from a file; `*` is for everyone under every name."""
    assert Access(["null"]).allows_origin("null", "127.0.0.1:8765")
    assert not Access(["null"]).allows_origin("http://evil.example", "127.0.0.1:8765")
    assert Access(["*"]).allows_origin("http://evil.example", "127.0.0.1:8765")
    assert Access(["*"]).allows_host("any.example")


@pytest.mark.parametrize("origin", ["desk.example", "https://desk.example/page", "", "https://"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """A mistake in --allow-origin is told rather than matching nothing."""
    with pytest.raises(ValueError, match="is not an origin; write scheme://host"):
        Access([origin])
