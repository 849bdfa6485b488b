"""Addresses of sources. Their text contains only parts that cannot be secret.

    address = network_address("rtsp://ada:s3cr3t@10.0.0.7/user=ada&password=s3cr3t&channel=1")
    str(address)      # "rtsp://10.0.0.7"
    address.name      # "10.0.0.7"

Scheme, host and port of a network address are shown, and names of files and devices. User names, passwords,
paths and queries are not: a path may contain a stream key, which no pattern can tell from other names.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from streams.errors import SourceInvalid
from streams.text import printable

__all__ = ["HIDDEN", "Address", "file_address", "network_address", "shown_path", "shown_text"]

HIDDEN = "[hidden, as it may contain a password]"
"""Replacement for a text that is not an address and may contain a password."""

MIN_SECRET = 4
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?!\\)")
_SCHEME_NAMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "rtp", "udp", "tcp"})
_ENCODE = "write special characters of a user name, password or path as %XX"


class Address:
    """Address that FFmpeg opens; `str` and `repr` contain only `shown`.

    Args:
        secret: The whole address, which may contain a password.
        shown: The parts that may be shown.
        name: Short display name; not unique.
        scheme: Scheme of a network address in lower case; empty for any other.
    """

    __slots__ = ("_secret", "name", "scheme", "shown")

    def __init__(self, secret: str, *, shown: str, name: str, scheme: str = "") -> None:
        self._secret = secret
        self.shown = printable(shown)
        self.name = name
        self.scheme = scheme

    def reveal(self) -> str:
        """Return the whole address. It may contain a password: pass it to FFmpeg only."""
        return self._secret

    def hide_in(self, text: str) -> str:
        """Return a text of others, such as a traceback, without this network address and its secret parts."""
        if not self.scheme:
            return text
        text = text.replace(self._secret, self.shown)
        parts = urlsplit(self._secret)
        query = f"?{parts.query}" if parts.query else ""
        secrets = {self._secret.partition("://")[2], parts.netloc.rpartition("@")[0], parts.password or ""}
        secrets |= {unquote(parts.password or ""), parts.path + query, parts.path.strip("/"), parts.query}
        # Shorter ones occur in other words too, and are no password.
        for secret in sorted((secret for secret in secrets if len(secret) >= MIN_SECRET), key=len)[::-1]:
            text = text.replace(secret, "…")
        return text

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self._secret == other._secret

    def __hash__(self) -> int:
        return hash(self._secret)


def file_address(path: Path, *, shown: str | None = None) -> Address:
    """Return the address of a file.

    Args:
        path: The file.
        shown: Text to show instead of the path; None for the path.
    """
    # The prefix keeps FFmpeg from parsing a colon in the file name as a protocol.
    return Address(f"file:{path}", shown=str(path) if shown is None else shown, name=path.name)


def network_address(text: str) -> Address:
    """Return a network address, `scheme://...`.

    Args:
        text: Address as a user types it.

    Raises:
        SourceInvalid: The address is malformed. Of the address, the message contains the scheme only.
    """
    scheme = text.partition(":")[0].lower()
    masked = f"{scheme}://…"
    if not text.isprintable():
        raise SourceInvalid(masked, "the address contains characters that cannot be printed", "remove them")
    parts = _split(text)
    if parts is None or not (parts.hostname is None or _HOST.fullmatch(parts.hostname)):
        raise SourceInvalid(masked, "not a well-formed address", _ENCODE)
    unambiguous = _host_is_unambiguous(parts)
    if not unambiguous and ("@" in parts.netloc or _host_may_be_a_user(parts)):
        # FFmpeg would look up the user name, or a part of the password, as a host name.
        raise SourceInvalid(masked, "it is unclear where the password ends", _ENCODE)
    if not unambiguous:
        return Address(text, shown=masked, name=scheme, scheme=scheme)
    host = parts.hostname or ""
    authority = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    return Address(text, shown=f"{scheme}://{authority}{port}", name=host or scheme, scheme=scheme)


def shown_path(path: Path) -> str:
    """Return a path as it may be shown; `HIDDEN` if it may be an address given by mistake."""
    text = str(path)
    return text if path.is_absolute() or not _SCHEME.match(text) else shown_text(text)


def shown_text(text: str) -> str:
    """Return what may be shown of a text that is not a source: all of it only if it looks like a path.

    Args:
        text: Text that a user gave as a source. It may be an address with a mistake in its scheme.
    """
    first = text.partition("/")[0]
    if (
        any(character in text for character in "@=?&")
        or text.startswith("//")
        or first.lower() in _SCHEME_NAMES
    ):
        return HIDDEN
    if text.startswith("webcam:"):
        return printable(text)
    if scheme := _SCHEME.match(text):
        return f"{scheme['scheme'].lower()}:…"
    return HIDDEN if ":" in first and not re.match(r"[A-Za-z]:", first) else printable(text)


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError if invalid
    except ValueError:
        # The error is discarded, because its text may quote a part of the password.
        return None
    return parts


def _host_is_unambiguous(parts: SplitResult) -> bool:
    """Return whether the host cannot be a part of a user name or password.

    An unescaped "/", "?" or "#" in a password ends the authority early: `user:pa/ss@host`.
    """
    if "@" not in parts.path and ("@" not in parts.query + parts.fragment or not _may_have_user(parts)):
        return True
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return False
    return True


def _host_may_be_a_user(parts: SplitResult) -> bool:
    """Return whether host and port look like a user name and the digits of a password: `ada:12/pa@host`."""
    host = parts.hostname or ""
    return ":" in parts.netloc and "." not in host and host != "localhost"


def _may_have_user(parts: SplitResult) -> bool:
    return ":" in parts.netloc or "@" in parts.netloc
