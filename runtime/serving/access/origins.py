"""Access rules: the values of the Host and Origin headers that the server accepts.

Any web page open in a browser can connect to a loopback socket. Two headers, which no page can forge,
identify it: Origin is the origin of the page that opens a WebSocket; Host is the name under which the server
was looked up, which differs from the server's own names under DNS rebinding. Programs other than browsers
send no Origin and are accepted.

No I/O: header values are passed in, a decision is returned.

Source: RFC 6455 section 10.2 (Origin considerations), RFC 6454 (serialisation of an origin).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

FILE_ORIGIN = "file://"
"""Origin that some browsers send for a page opened from a file; others send `null`."""

# Access depends on these. If a request has two of one name, a proxy may have checked the other one.
_SINGLE_HEADERS = frozenset({"host", "origin", "authorization"})
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?", re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@dataclass(frozen=True, slots=True)
class Authority:
    """Host and port of a URL.

    Args:
        host: Name in lower case, or address without brackets.
        port: Port; None for the default of the scheme.
    """

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse `host[:port]`; None if the text has another form."""
        match = _AUTHORITY.fullmatch(text.lower())
        if match is None:
            return None
        port = None if match[2] is None else int(match[2])
        return cls(match[1].strip("[]"), port)

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, which DNS rebinding cannot change."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_loopback(self) -> bool:
        """Whether the host is a loopback name or address."""
        if self.is_address:
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost" or self.host.endswith(".localhost")


class Access:
    """Rules that decide which requests are accepted, by their Host and Origin headers.

    Args:
        allow_origin: Origins of other pages that may connect, `scheme://host[:port]`; `null` or `file://` for
            pages opened from a file; `*` for any.
        names: Accepted host names, besides loopback names and IP addresses.

    Raises:
        ValueError: An origin has another form.
    """

    def __init__(self, allow_origin: Collection[str] = (), names: Iterable[str] = ()) -> None:
        origins = {_normal_origin(origin) for origin in allow_origin}
        self.allow_origin = frozenset(origins | {"null", FILE_ORIGIN} if "null" in origins else origins)
        self._names = {name.lower() for name in names}
        # A proxy in front of this server may serve it under the name of an allowed origin.
        for origin in self.allow_origin:
            match = _ORIGIN.fullmatch(origin)
            authority = Authority.parse(match[2]) if match else None
            if authority is not None:
                self._names.add(authority.host)

    def allows_host(self, host: str | None) -> bool:
        """Return whether the Host header names this server.

        Args:
            host: Value of the header; None if it is absent, as in HTTP/1.0, which no browser uses.
        """
        if host is None or "*" in self.allow_origin:
            return True
        authority = Authority.parse(host)
        return authority is not None and (
            authority.is_address or authority.is_loopback or authority.host in self._names
        )

    def allows_origin(self, origin: str | None, host: str | None) -> bool:
        """Return whether a WebSocket handshake comes from a page of this server or of an allowed origin.

        Args:
            origin: Value of the Origin header; None if it is absent.
            host: Value of the Host header, already accepted.
        """
        if origin is None or "*" in self.allow_origin or origin.lower() in self.allow_origin:
            return True
        match = _ORIGIN.fullmatch(origin.lower())
        served = None if host is None else Authority.parse(host)
        if match is None or match[1] not in _DEFAULT_PORTS or served is None:
            return False
        page = Authority.parse(match[2])
        if page is None:
            return False
        default_port = _DEFAULT_PORTS[match[1]]
        if (page.port or default_port) != (served.port or default_port):
            return False
        return page.host == served.host or (page.is_loopback and served.is_loopback)


def repeated_header(headers: Iterable[tuple[str, str]]) -> str | None:
    """Return the name of a header that access depends on and that occurs more than once; None without one.

    Args:
        headers: Names and values of the headers of a request.
    """
    counted = Counter(name.lower() for name, _ in headers)
    return next((name.title() for name in sorted(_SINGLE_HEADERS) if counted[name] > 1), None)


def _normal_origin(text: str) -> str:
    origin = text.strip().lower()
    if origin.startswith(FILE_ORIGIN):
        return "null"
    origin = origin.removesuffix("/")
    if origin in {"*", "null"}:
        return origin
    match = _ORIGIN.fullmatch(origin)
    if match is None or Authority.parse(match[2]) is None:
        raise ValueError(f"{text!r} is not an origin; write scheme://host[:port], null, file:// or *")
    # Browsers omit the default port.
    default = _DEFAULT_PORTS.get(match[1])
    return origin.removesuffix(f":{default}") if default else origin
