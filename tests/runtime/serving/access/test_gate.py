"""Decision on requests: tokens, cookies, rights, failed attempts and proxies, without a server."""

from __future__ import annotations

import math
from http import HTTPStatus
from pathlib import Path

import pytest

from runtime.errors import TokenFileInvalid
from runtime.serving.access.attempts import FREE_FAILURES, MAX_WAIT_S, Attempts
from runtime.serving.access.gate import NOBODY, Admission, Gate, ProxyRules, Refusal
from runtime.serving.access.identity import LOCAL, RightMissing
from runtime.serving.access.origins import Access
from runtime.serving.access.tokens import TokenSet, create_token_file, parse_tokens, read_token_file

HOST = ("Host", "127.0.0.1:8765")
ADMIN, GUARD, OLD = "admin-token-0123456789", "guard-token-0123456789", "old-token-0123456789"
TEXT = f"""# tokens
{ADMIN} read control send name=admin
{GUARD} read:door "read:front gate"  # the guard
{OLD} read expires=2020-01-31
"""


class Clock:
    """Clock that the test sets."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def make_gate(clock: Clock | None = None, proxy: ProxyRules | None = None) -> Gate:
    clock = clock or Clock()
    tokens = TokenSet(parse_tokens(TEXT, Path("tokens")))
    return Gate(Access(), tokens=tokens, proxy=proxy, clock=clock, wall=clock)


def admit(gate: Gate, *headers: tuple[str, str], target: str = "/ws", peer: str = "10.0.0.9") -> Admission:
    """Admit a request, which must not be refused."""
    admission = gate.admit("GET", target, [HOST, *headers], peer=peer, secure=False)
    assert isinstance(admission, Admission), admission
    return admission


def refuse(gate: Gate, *headers: tuple[str, str], method: str = "GET", peer: str = "10.0.0.9") -> Refusal:
    """Present a request, which must be refused."""
    refusal = gate.admit(method, "/ws", [HOST, *headers], peer=peer, secure=False)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def test_a_token_gives_its_rights() -> None:
    """A limited token reads its streams only, and controls nothing."""
    admin = admit(make_gate(), bearer(ADMIN)).identity
    guard = admit(make_gate(), bearer(GUARD)).identity
    assert (admin.name, guard.name) == ("admin", "line 3")
    admin.require("control")
    admin.require("read", stream="anything")
    guard.require("read")
    guard.require("read", stream="front gate")
    with pytest.raises(RightMissing, match="'read' for the stream 'yard'"):
        guard.require("read", stream="yard")
    with pytest.raises(RightMissing, match="'control'; use a token that has it"):
        guard.require("control")


def test_without_tokens_everyone_may_read_and_send() -> None:
    """Where no token is required, sources can still not be controlled."""
    identity = admit(Gate(Access())).identity
    assert identity == LOCAL
    assert not identity.may("control")


def test_without_credentials_a_request_has_no_rights() -> None:
    """It is admitted for the login page and for a token in the first message."""
    assert admit(make_gate()).identity == NOBODY
    # A proxy may use another scheme for itself.
    assert admit(make_gate(), ("Authorization", "Basic YTpi")).identity == NOBODY


@pytest.mark.parametrize(
    "token", ["", " ", "x", ADMIN[:-1], ADMIN + "x", ADMIN.upper(), "ü" * 30, f"{ADMIN} {ADMIN}"]
)
def test_a_wrong_token_is_refused(token: str) -> None:
    """The answer names the cause, not the token."""
    refusal = refuse(make_gate(), bearer(token))
    assert refusal.status is HTTPStatus.UNAUTHORIZED
    assert refusal.reason == ("the token is wrong" if token.strip() else "the token is empty")
    assert refusal.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_is_refused() -> None:
    """The holder learns that it has expired."""
    assert refuse(make_gate(), bearer(OLD)).reason == "the token has expired"


def test_white_space_around_a_token_is_ignored() -> None:
    """A token read from a file ends with a line break."""
    assert make_gate().authenticate(f"{ADMIN}\n", "10.0.0.9") != NOBODY
    assert not isinstance(make_gate().authenticate(f" {ADMIN}\r\n", "10.0.0.9"), Refusal)


def test_two_authorization_headers_are_refused() -> None:
    """A proxy may have checked the other one."""
    assert refuse(make_gate(), bearer(ADMIN), bearer(GUARD)).status is HTTPStatus.BAD_REQUEST
    assert refuse(make_gate(), ("host", "127.0.0.1")).status is HTTPStatus.BAD_REQUEST
    twice = refuse(make_gate(), ("Origin", "http://127.0.0.1:8765"), ("origin", "http://127.0.0.1:8765"))
    assert (twice.status, twice.reason) == (
        HTTPStatus.BAD_REQUEST,
        "The header Origin occurs more than once.",
    )


def test_a_cookie_stands_for_a_token_until_it_expires_or_is_removed() -> None:
    """It is not the token, survives a restart, and cannot be prolonged."""
    clock = Clock()
    gate = make_gate(clock)
    value, lifetime_s = gate.cookie(GUARD)
    cookie = ("Cookie", f"theme=dark; unmask={value}")
    assert GUARD not in value
    assert admit(make_gate(clock), cookie).identity == admit(gate, bearer(GUARD)).identity
    expires, _, signature = value.partition(".")
    assert admit(gate, ("Cookie", f"unmask={int(expires) + 1}.{signature}")).identity == NOBODY
    assert admit(gate, ("Cookie", "unmask=" + "0" * 80)).identity == NOBODY
    clock.now += lifetime_s + 1
    assert admit(gate, cookie).identity == NOBODY
    clock.now = Clock.now
    gate.tokens = TokenSet(parse_tokens(f"{ADMIN} read", Path("tokens")))
    assert admit(gate, cookie).identity == NOBODY


def test_a_cookie_ends_with_its_token() -> None:
    """A token that expires soon gives a cookie that expires as soon."""
    clock = Clock()
    tokens = TokenSet(parse_tokens(f"{ADMIN} read expires=2027-01-31", Path("tokens")))
    _, lifetime_s = Gate(Access(), tokens=tokens, wall=clock).cookie(ADMIN)
    assert clock.now + lifetime_s == pytest.approx(1_801_353_600, abs=1)


def test_an_open_connection_ends_with_its_token() -> None:
    """A token that was removed, changed or has expired is no longer valid."""
    clock = Clock()
    gate = make_gate(clock)
    identity = admit(gate, bearer(ADMIN)).identity
    assert gate.still_valid(identity)
    gate.tokens = TokenSet(parse_tokens(f"{ADMIN} read name=admin", Path("tokens")))
    assert not gate.still_valid(identity)
    gate.tokens = TokenSet(parse_tokens(f"{ADMIN} read expires=2027-01-31", Path("tokens")))
    limited = admit(gate, bearer(ADMIN)).identity
    assert gate.still_valid(limited)
    clock.now += 365 * 24 * 3600
    assert not gate.still_valid(limited)


def test_an_open_connection_ends_when_its_token_is_replaced() -> None:
    """The line keeps name and rights, but the old token is no longer accepted."""
    gate = make_gate()
    identity = admit(gate, bearer(ADMIN)).identity
    gate.tokens = TokenSet(parse_tokens(TEXT.replace(ADMIN, "new-admin-token-0123456789"), Path("tokens")))
    assert not gate.still_valid(identity)
    assert identity.digest.hex() not in repr(identity)
    assert repr(identity.digest) not in repr(identity)


def test_an_open_connection_continues_when_its_line_moves() -> None:
    """The default name of a token, the number of its line, may change; its rights stay."""
    gate = make_gate()
    identity = admit(gate, bearer(GUARD)).identity
    gate.tokens = TokenSet(parse_tokens(f"# a comment\n{TEXT}", Path("tokens")))
    assert admit(gate, bearer(GUARD)).identity.name != identity.name
    assert gate.still_valid(identity)


def test_an_address_has_to_wait_after_wrong_tokens() -> None:
    """Each wait is twice as long; other addresses and open sessions are not affected."""
    clock = Clock()
    gate = make_gate(clock)
    value, _ = gate.cookie(ADMIN)
    for _ in range(FREE_FAILURES):
        assert refuse(gate, bearer("wrong")).status is HTTPStatus.UNAUTHORIZED
    waiting = refuse(gate, bearer(ADMIN))
    assert waiting.status is HTTPStatus.TOO_MANY_REQUESTS
    assert waiting.headers["Retry-After"] == "1"
    assert admit(gate, bearer(ADMIN), peer="10.0.0.10").identity.name == "admin"
    assert admit(gate, ("Cookie", f"unmask={value}")).identity.name == "admin"
    clock.now += 1.01
    assert admit(gate, bearer(ADMIN)).identity.name == "admin"
    waits = []
    for _ in range(7):
        assert refuse(gate, bearer("wrong")).status is HTTPStatus.UNAUTHORIZED
        waits.append(int(refuse(gate, bearer("wrong")).headers["Retry-After"]))
        clock.now += waits[-1]
    assert waits == [2, 4, 8, 16, 30, 30, 30]
    assert waits[-1] == MAX_WAIT_S


def test_the_table_of_attempts_is_bounded() -> None:
    """Many addresses do not fill the memory, and an attacker's /64 counts as one address."""
    attempts = Attempts(capacity=100)
    for number in range(10_000):
        attempts.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(attempts) == 100
    attempts = Attempts()
    for number in range(FREE_FAILURES):
        attempts.failed(f"2001:db8::{number}", 0.0)
    assert attempts.wait_s("2001:db8::ffff", 0.0) == 1.0
    assert attempts.wait_s("2001:db8:0:1::1", 0.0) == 0.0
    for _ in range(10_000):
        attempts.failed("not an address", 0.0)
    assert attempts.wait_s("not an address", 0.0) == MAX_WAIT_S


def test_failures_are_forgotten() -> None:
    """A mistake of yesterday does not count today."""
    attempts = Attempts()
    for day in range(20):
        attempts.failed("10.0.0.9", 86400.0 * day)
        assert attempts.wait_s("10.0.0.9", 86400.0 * day) == 0.0


@pytest.mark.parametrize(
    ("stated", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_proxy_states_the_address_of_the_client(stated: str, address: str) -> None:
    """The last address counts, because a client may send the ones before it."""
    gate = make_gate(proxy=ProxyRules(header="X-Forwarded-For"))
    headers = [("X-Forwarded-For", stated), ("X-Forwarded-Proto", "https")]
    admission = admit(gate, *headers, peer="127.0.0.1")
    assert (admission.address, admission.secure) == (address, True)
    # Only the proxy is believed.
    direct = admit(gate, *headers, peer="10.0.0.9")
    assert (direct.address, direct.secure) == ("10.0.0.9", False)
    assert admit(make_gate(), *headers, peer="127.0.0.1").address == "127.0.0.1"


def test_the_base_path_is_removed() -> None:
    """Paths from which the proxy has removed it are accepted too."""
    gate = make_gate(proxy=ProxyRules(base_path="/watch/unmask/"))
    for target in ("/watch/unmask/ws?x=1", "/ws?x=1"):
        admission = admit(gate, target=target)
        assert (admission.path, admission.query) == ("/ws", "x=1")
    assert admit(gate, target="/watch/unmaskws").path == "/watch/unmaskws"


@pytest.mark.parametrize("path", ["unmask", "/a b", "/a//b", "/a\r\nb", "/ü"])
def test_a_malformed_base_path_is_an_error(path: str) -> None:
    """The error shows how to write it."""
    with pytest.raises(ValueError, match="write it like /unmask"):
        ProxyRules(base_path=path)


def test_pages_of_other_origins_may_not_send() -> None:
    """A form on another page cannot use the cookie of this server."""
    refusal = refuse(make_gate(), ("Origin", "https://evil.example"), bearer(ADMIN), method="POST")
    assert (refusal.status, refusal.cause) == (HTTPStatus.FORBIDDEN, "origin")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "contains no token"),
        ("# nothing\n\n", None, "contains no token"),
        ("short read", 1, "shorter than 16"),
        (f"{ADMIN}\n{ADMIN} read", 2, "the same token is in line 1"),
        (f"{ADMIN} {GUARD}", 1, "after the token come"),
        (f"{ADMIN} write", 1, "after the token come"),
        (f"{ADMIN} read:", 1, "after the token come"),
        (f"{ADMIN} expires=tomorrow", 1, "is not a time"),
        (f'{ADMIN} "read:door', 1, "quotation"),
        (f"ä{ADMIN}", 1, "consists of letters"),
    ],
)
def test_a_malformed_token_file_is_an_error(text: str, line: int | None, reason: str) -> None:
    """The error names file, line and cause, but no token."""
    with pytest.raises(TokenFileInvalid, match=reason) as raised:
        parse_tokens(text, Path("tokens"))
    assert raised.value.line == line
    assert not any(token in str(raised.value) for token in (ADMIN, GUARD))


def test_a_token_file_is_created_for_its_owner_only(tmp_path: Path) -> None:
    """The new token has every right; an existing file is not replaced."""
    path = tmp_path / "tokens"
    token = create_token_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    identity = read_token_file(path).find(token)
    assert identity is not None
    assert identity.rights == {"read", "control", "send"}
    assert identity.expires == math.inf
    with pytest.raises(TokenFileInvalid, match="file exists"):
        create_token_file(path)
    with pytest.raises(TokenFileInvalid, match="no such file"):
        read_token_file(tmp_path / "none")


def test_a_token_file_that_others_can_read_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is used all the same: a container may not be able to change it."""
    path = tmp_path / "tokens"
    path.write_text(f"\ufeff{ADMIN}\r\n")
    path.chmod(0o644)
    identity = read_token_file(path).find(ADMIN)
    assert identity is not None
    assert identity.rights == {"read"}
    assert [record.getMessage() for record in caplog.records] == [
        f"other users may read or change {path}; run chmod 600 on it"
    ]
