"""Access rules: which Host and Origin headers are accepted."""

from __future__ import annotations

import pytest

from runtime.serving.access.origins import Access, Authority


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8765", "127.0.0.1", 8765),
        ("LocalHost", "localhost", None),
        ("[::1]:8765", "::1", 8765),
        ("camera-1.example", "camera-1.example", None),
    ],
)
def test_host_and_port_are_parsed(text: str, host: str, port: int | None) -> None:
    """Host headers are parsed as browsers write them."""
    assert Authority.parse(text) == Authority(host, port)


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a:b", "a:123456", "user@a", "a;b", "[::1", "a\nb"])
def test_a_malformed_authority_is_none(text: str) -> None:
    """A malformed Host header cannot reach a response header."""
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
def test_own_names_and_addresses_are_accepted(host: str | None) -> None:
    """Loopback names, the machine's name, IP addresses and requests without a Host header are accepted."""
    assert Access(names=["studio"]).allows_host(host)


@pytest.mark.parametrize(
    "host", ["evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
)
def test_other_names_are_refused(host: str) -> None:
    """A name that was rebound to this machine (DNS rebinding) is refused."""
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
    """Pages of the server under any of its names, and programs without an Origin header, may connect."""
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
def test_pages_of_other_origins_are_refused(origin: str) -> None:
    """A page of another host or port, a file or an extension is refused by default."""
    assert not Access().allows_origin(origin, "127.0.0.1:8765")


def test_an_allowed_origin_may_connect() -> None:
    """--allow-origin admits exactly that origin, and its host name as behind a proxy."""
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


def test_null_and_any_origin() -> None:
    """`null` and `file://` admit pages opened from a file; `*` admits every origin and host."""
    for option in ("null", "file://", "file:///"):
        # Browsers differ in what they send for a page opened from a file.
        for sent in ("null", "file://"):
            assert Access([option]).allows_origin(sent, "127.0.0.1:8765")
    assert not Access(["null"]).allows_origin("http://evil.example", "127.0.0.1:8765")
    assert Access(["*"]).allows_origin("http://evil.example", "127.0.0.1:8765")
    assert Access(["*"]).allows_host("any.example")


@pytest.mark.parametrize("origin", ["desk.example", "https://desk.example/page", "", "https://"])
def test_a_malformed_allowed_origin_is_an_error(origin: str) -> None:
    """A mistake in --allow-origin raises an error instead of never matching."""
    with pytest.raises(ValueError, match="is not an origin; write scheme://host"):
        Access([origin])
