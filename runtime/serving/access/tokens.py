"""Tokens with their rights: the token file, the comparison, and the cookie that stands for a token.

    # TOKEN [RIGHT...] [name=NAME] [expires=TIME]
    kJ3v…9Q read control send name=admin
    Zt0w…xA read:door "read:front gate" name=guard expires=2027-01-31T18:00:00Z

A line without a right has `read`. Only digests of the tokens are kept in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import shlex
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from runtime.errors import TokenFileInvalid, os_reason
from runtime.serving.access.identity import RIGHTS, Identity, Right

logger = logging.getLogger(__name__)

MIN_LENGTH = 16
COOKIE_LIFETIME_S = 30 * 24 * 3600
MAX_FILE_BYTES = 1024 * 1024

# Characters of RFC 6750, without quotes and spaces.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_COOKIE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")
_HEADER = """\
# Tokens of unmask, one a line: TOKEN [RIGHT...] [name=NAME] [expires=2027-01-31]
# Rights: read, read:STREAM, control, send. Without one: read. SIGHUP reads this file again.
"""


class TokenSet:
    """Accepted tokens.

    Args:
        identities: Identity that each token gives; of two with the same digest, the first counts.
    """

    def __init__(self, identities: Sequence[Identity]) -> None:
        self._identities = tuple(identities)

    def __len__(self) -> int:
        return len(self._identities)

    def find(self, presented: str) -> Identity | None:
        """Return the identity of a token, expired or not; None if there is no such token.

        The time taken does not depend on the token.

        Args:
            presented: Text presented as a token; white space around it is ignored.
        """
        return self._find(_digest(presented.strip()), [identity.digest for identity in self._identities])

    def cookie(self, presented: str, now: float) -> tuple[str, int]:
        """Return a cookie value that stands for a valid token, and the seconds for which it is valid.

        It is signed with the token, so it survives a restart and ends when the token is removed.

        Args:
            presented: A token that `find` accepts.
            now: Unix seconds.
        """
        identity = self.find(presented)
        assert identity is not None
        expires = int(min(now + COOKIE_LIFETIME_S, identity.expires))
        return f"{expires}.{_signature(_digest(presented.strip()), expires)}", max(0, expires - int(now))

    def find_cookie(self, value: str, now: float) -> Identity | None:
        """Return the identity that a cookie stands for; None if it is invalid or has expired.

        Args:
            value: Value of the cookie.
            now: Unix seconds.
        """
        match = _COOKIE.fullmatch(value)
        if match is None or int(match[1]) <= now:
            return None
        expires = int(match[1])
        expected = [bytes.fromhex(_signature(identity.digest, expires)) for identity in self._identities]
        return self._find(bytes.fromhex(match[2]), expected)

    def contains(self, identity: Identity) -> bool:
        """Return whether the token of an identity is accepted and still gives the same rights."""
        return identity in self._identities

    def _find(self, digest: bytes, expected: Sequence[bytes]) -> Identity | None:
        found: Identity | None = None
        # No early exit: every digest is compared.
        for identity, candidate in zip(self._identities, expected, strict=True):
            if hmac.compare_digest(digest, candidate) and found is None:
                found = identity
        return found


def read_token_file(path: Path) -> TokenSet:
    """Read a token file.

    Args:
        path: The file; one that other users can read is accepted with a warning.

    Raises:
        TokenFileInvalid: The file cannot be read, contains no token or a malformed line. The message contains
            no token.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenFileInvalid(path, None, "it is larger than 1 MiB")
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except UnicodeDecodeError as error:
        raise TokenFileInvalid(path, None, "it is not UTF-8 text") from error
    except OSError as error:
        raise TokenFileInvalid(path, None, os_reason(error)) from error
    if os.name == "posix" and mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        logger.warning("other users may read or change %s; run chmod 600 on it", path)
    return TokenSet(parse_tokens(text, path))


def parse_tokens(text: str, path: Path) -> list[Identity]:
    """Parse the text of a token file, and return the identity that each token gives.

    Args:
        text: The text.
        path: Path of the file, for errors.

    Raises:
        TokenFileInvalid: There is no token, or a line is malformed.
    """
    identities: list[Identity] = []
    lines: dict[bytes, int] = {}
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
            if not words:
                continue
            identity = _parse_line(words, number)
        except ValueError as error:
            raise TokenFileInvalid(path, number, str(error)) from error
        if identity.digest in lines:
            raise TokenFileInvalid(path, number, f"the same token is in line {lines[identity.digest]}")
        lines[identity.digest] = number
        identities.append(identity)
    if not identities:
        raise TokenFileInvalid(path, None, "it contains no token")
    return identities


def create_token_file(path: Path) -> str:
    """Create a token file with one token that has every right, readable by its owner only; return the token.

    Args:
        path: The file, which must not exist.

    Raises:
        TokenFileInvalid: The file cannot be created.
    """
    token = secrets.token_urlsafe(32)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{_HEADER}{token} read control send name=admin\n")
    except OSError as error:
        raise TokenFileInvalid(path, None, os_reason(error)) from error
    return token


def _parse_line(words: Sequence[str], number: int) -> Identity:
    token, *rest = words
    if not _TOKEN.fullmatch(token):
        raise ValueError("a token consists of letters, digits and . _ ~ + / = -")
    if len(token) < MIN_LENGTH:
        raise ValueError(f"the token is shorter than {MIN_LENGTH} characters")
    rights: set[Right] = set()
    streams: set[str] = set()
    everything, name, expires = False, f"line {number}", math.inf
    for word in rest:
        if word in RIGHTS:
            rights.add(cast(Right, word))
            everything |= word == "read"
        elif word.startswith("read:") and len(word) > len("read:"):
            rights.add("read")
            streams.add(word.removeprefix("read:"))
        elif word.startswith("name=") and len(word) > len("name="):
            name = word.removeprefix("name=")
        elif word.startswith("expires="):
            expires = _parse_time(word.removeprefix("expires="))
        else:
            # Not quoted: it may be another token.
            raise ValueError(
                "after the token come read, read:STREAM, control, send, name=NAME or expires=TIME"
            )
    limited = frozenset(streams) if streams and not everything else None
    return Identity(
        name=name,
        rights=frozenset(rights or {"read"}),
        streams=limited,
        expires=expires,
        digest=_digest(token),
    )


def _parse_time(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is not a time; write 2027-01-31 or 2027-01-31T18:00:00Z") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _signature(digest: bytes, expires: int) -> str:
    return hmac.new(digest, f"unmask cookie {expires}".encode(), "sha256").hexdigest()
