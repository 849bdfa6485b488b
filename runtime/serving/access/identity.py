"""Rights of the sender of a request, and the one way to require them.

    identity.require("read", stream="door")  # raises RightMissing

Every HTTP route and every WebSocket command that returns data about streams or changes something calls
`Identity.require` before it does so. No I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

Right: TypeAlias = Literal["read", "control", "send"]
"""`read` verdicts, frames and events; `control` sources; `send` video to the server."""

RIGHTS: frozenset[str] = frozenset(get_args(Right))


class RightMissing(PermissionError):
    """The sender of a request lacks a right.

    Args:
        right: The right that is needed.
        stream: Stream that the request is about; None if it is about no single one.
    """

    def __init__(self, right: Right, stream: str | None = None) -> None:
        super().__init__(right, stream)
        self.right = right
        self.stream = stream

    def __str__(self) -> str:
        about = "" if self.stream is None else f" for the stream {self.stream!r}"
        return f"this needs the right {self.right!r}{about}; use a token that has it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Sender of a request, and what it may do.

    Two are equal if they have the same token and the same rights. The name may be the number of a line, which
    changes with the lines above it.

    Args:
        name: Name of the token, for logs; never the token itself.
        rights: The rights.
        streams: Names of the streams to which `read` is limited; None for all.
        expires: Unix seconds at which the rights end; infinity for never.
        digest: SHA-256 of the token; empty without one.
    """

    name: str = field(compare=False)
    rights: frozenset[Right]
    streams: frozenset[str] | None = None
    expires: float = math.inf
    digest: bytes = field(default=b"", repr=False)

    def may(self, right: Right, *, stream: str | None = None) -> bool:
        """Return whether the sender has a right.

        Args:
            right: The right.
            stream: Stream that the request is about; None if it is about no single one.
        """
        if right not in self.rights:
            return False
        return right != "read" or stream is None or self.streams is None or stream in self.streams

    def require(self, right: Right, *, stream: str | None = None) -> None:
        """Raise an error unless the sender has a right.

        Args:
            right: The right.
            stream: Stream that the request is about; None if it is about no single one.

        Raises:
            RightMissing: The sender lacks it; the server answers HTTP 403, or a failed result to a command.
        """
        if not self.may(right, stream=stream):
            raise RightMissing(right, stream)


LOCAL = Identity(name="without a token", rights=frozenset({"read", "send"}))
"""Everyone, where the server requires no token. Sources can be controlled with a token only."""
