"""Decision on every request: who sent it, from where, and whether it is admitted.

    admission = gate.admit("GET", "/unmask/ws", headers, peer="10.0.0.9", secure=False)

No I/O: the parts of a request are passed in; an admission or a refusal is returned.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias

from runtime.serving.access.attempts import Attempts
from runtime.serving.access.identity import LOCAL, Identity, Right, RightMissing
from runtime.serving.access.origins import Access, repeated_header
from runtime.serving.access.tokens import TokenSet

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

NOBODY = Identity(name="nobody", rights=frozenset())
"""Sender of a request without credentials to a server that requires a token."""

LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
TOKEN_NEEDED = (
    "this server requires a token: open its login page, or send it as `Authorization: Bearer TOKEN` "
    "or in the first message of the WebSocket"
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_BEARER = re.compile(r"bearer(?: +(.*))?", re.IGNORECASE)
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refused request.

    Args:
        status: Status of the response.
        cause: Cause as a label of the metric: `request`, `host`, `origin`, `token` or `right`.
        reason: Reason and advice, in one line.
        headers: Headers of the response.
    """

    status: HTTPStatus
    cause: str
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Admitted request.

    Args:
        identity: Sender; `NOBODY` if it presented nothing although a token is required.
        path: Path without the base path and the query.
        query: Query without its question mark.
        headers: Headers by their names in lower case; values of repeated ones are joined with commas.
        address: Address of the client.
        secure: Whether the client uses HTTPS.
    """

    identity: Identity
    path: str
    query: str
    headers: Mapping[str, str]
    address: str
    secure: bool


@dataclass(frozen=True, kw_only=True)
class ProxyRules:
    """Reverse proxy in front of the server.

    Args:
        base_path: Path under which the proxy serves this server, such as `/unmask`; empty for the root.
            Paths from which the proxy has removed it are accepted too.
        header: Header in which the proxy states the address of the client, such as `X-Forwarded-For`, of
            which the last address counts; None if there is no proxy.
        addresses: Addresses or networks of the proxy; the header of any other peer is ignored.

    Raises:
        ValueError: A path or a network is malformed.
    """

    base_path: str = ""
    header: str | None = None
    addresses: Collection[str] = LOOPBACK_NETWORKS
    _networks: tuple[Network, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        path = self.base_path.rstrip("/")
        if not _BASE_PATH.fullmatch(path):
            raise ValueError(f"{self.base_path!r} is not a base path; write it like /unmask")
        object.__setattr__(self, "base_path", path)
        networks = []
        for address in self.addresses:
            try:
                networks.append(ipaddress.ip_network(address, strict=False))
            except ValueError as error:
                raise ValueError(f"{address!r} is not the address or network of a proxy") from error
        object.__setattr__(self, "_networks", tuple(networks))

    def trusts(self, peer: str) -> bool:
        """Return whether a peer is the proxy."""
        address = _plain_address(peer)
        if self.header is None or address is None:
            return False
        return any(address in network for network in self._networks)


class Gate:
    """Decision which requests are admitted, and with which rights.

    Args:
        origins: Rules for the headers Host and Origin.
        tokens: Accepted tokens; None if the server requires none.
        proxy: Reverse proxy in front of the server.
        attempts: Table of failed attempts.
        clock: Returns monotonic seconds.
        wall: Returns Unix seconds.

    Attributes:
        tokens: As above; may be replaced while the server runs.
        cookie_name: Name of the cookie. Cookies ignore ports, so two servers of one host need two names.
    """

    def __init__(
        self,
        origins: Access,
        *,
        tokens: TokenSet | None = None,
        proxy: ProxyRules | None = None,
        attempts: Attempts | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.origins = origins
        self.tokens = tokens
        self.proxy = proxy or ProxyRules()
        self.cookie_name = "unmask"
        self._attempts = attempts or Attempts()
        self._clock = clock
        self._wall = wall

    def admit(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], *, peer: str, secure: bool
    ) -> Admission | Refusal:
        """Decide on a request.

        Args:
            method: HTTP method.
            target: Path and query.
            headers: Names and values of the headers.
            peer: Address from which the connection comes.
            secure: Whether the connection uses TLS.
        """
        if repeated := repeated_header(headers):
            return Refusal(HTTPStatus.BAD_REQUEST, "request", f"The header {repeated} occurs more than once.")
        by_name = _joined(headers)
        host, origin = by_name.get("host"), by_name.get("origin")
        if not self.origins.allows_host(host):
            return Refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "host",
                f"This server does not accept requests for the host {host!r}; "
                "start unmask with --allow-origin and the origin of the page.",
            )
        if method not in _SAFE_METHODS and not self.origins.allows_origin(origin, host):
            reason = f"Pages of origin {origin!r} may not send anything to {host!r}."
            return Refusal(HTTPStatus.FORBIDDEN, "origin", reason)
        address, secure = self._client(by_name, peer, secure)
        identity = self._identify(by_name, address)
        if isinstance(identity, Refusal):
            return identity
        path, _, query = target.partition("?")
        return Admission(
            identity=identity,
            path=self._local_path(path),
            query=query,
            headers=by_name,
            address=address,
            secure=secure,
        )

    def authenticate(self, token: str, address: str) -> Identity | Refusal:
        """Examine a token: from a header, the login page or the first message of a WebSocket.

        Args:
            token: The token; white space around it is ignored.
            address: Address of the client. After several wrong tokens it has to wait.
        """
        if self.tokens is None:
            return LOCAL
        wait_s = self._attempts.wait_s(address, self._clock())
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            return Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "token",
                f"too many wrong tokens from {address}; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        identity = self.tokens.find(token)
        if identity is None:
            self._attempts.failed(address, self._clock())
            reason = "the token is wrong" if token.strip() else "the token is empty"
        elif identity.expires <= self._wall():
            reason = "the token has expired"
        else:
            return identity
        return _unauthorised(reason)

    def cookie(self, token: str) -> tuple[str, int]:
        """Return the cookie value for a token that was just accepted, and its lifetime in seconds."""
        assert self.tokens is not None
        return self.tokens.cookie(token, self._wall())

    def still_valid(self, identity: Identity) -> bool:
        """Return whether an identity that was admitted before still has its rights.

        Args:
            identity: Identity of an open connection. Its token may have expired or been removed since.
        """
        if self.tokens is None:
            return True
        return self.tokens.contains(identity) and identity.expires > self._wall()

    def _identify(self, headers: Mapping[str, str], address: str) -> Identity | Refusal:
        if self.tokens is None:
            return LOCAL
        # A proxy may use other schemes, such as Basic, for itself.
        if bearer := _BEARER.fullmatch(headers.get("authorization", "").strip()):
            return self.authenticate(bearer[1] or "", address)
        for value in _cookies(headers.get("cookie", ""), self.cookie_name):
            identity = self.tokens.find_cookie(value, self._wall())
            if identity is not None:
                return identity
        return NOBODY

    def _client(self, headers: Mapping[str, str], peer: str, secure: bool) -> tuple[str, bool]:
        if not self.proxy.trusts(peer) or self.proxy.header is None:
            return peer, secure
        stated = headers.get(self.proxy.header.lower(), "").rpartition(",")[2].strip()
        address = _plain_address(stated)
        secure = secure or headers.get("x-forwarded-proto", "").strip().lower() in {"https", "wss"}
        return peer if address is None else str(address), secure

    def _local_path(self, path: str) -> str:
        base = self.proxy.base_path
        if base and path.startswith(f"{base}/"):
            return path.removeprefix(base)
        return path


def missing_right(identity: Identity, right: Right, error: RightMissing | None = None) -> Refusal:
    """Return the refusal of a request whose sender lacks a right."""
    if not identity.rights:
        return _unauthorised(TOKEN_NEEDED)
    return Refusal(HTTPStatus.FORBIDDEN, "right", str(error or RightMissing(right)))


def _unauthorised(reason: str) -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, "token", reason, {"WWW-Authenticate": 'Bearer realm="unmask"'})


def _joined(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        separator = "; " if key == "cookie" else ", "
        joined[key] = f"{joined[key]}{separator}{value}" if key in joined else value
    return joined


def _cookies(header: str, name: str) -> Iterator[str]:
    for pair in header.split(";"):
        found, _, value = pair.partition("=")
        if found.strip() == name:
            yield value.strip()


def _plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address, with or without brackets, port and zone; None if the text has another form."""
    text = text.strip().strip('"')
    if match := re.fullmatch(r"\[([^\]]+)\](?::\d+)?|([0-9.]+):\d+", text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
