"""The messages that clients may send: one struct each.

    request = parse_client_message(b'{"type":"request_previews","stream":"cam","width":640,"rate_hz":8}')

Everything else that a client sends is ignored. `runtime/serving/web/asyncapi.yaml` describes them for other
languages; a test compares the two. No I/O.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="request_previews"):
    """Request for frames as JPEG, until the next request about the same stream or the end of the connection.

    Args:
        stream: Name of the stream; None for all streams without a request of their own.
        width: Maximum width in pixels; 0 for no frames.
        rate_hz: Maximum number of frames per second and stream.
    """

    stream: str | None = None
    width: Annotated[int, Meta(ge=0)] = 320
    rate_hz: Annotated[float, Meta(gt=0.0)] = 4.0


ClientMessage: TypeAlias = PreviewRequest


class _Tagged(msgspec.Struct):
    """Any message with a type: msgspec accepts a missing one where there is a single struct."""

    type: str


_tags = msgspec.json.Decoder(_Tagged)
_messages = msgspec.json.Decoder(ClientMessage)


def parse_client_message(data: bytes) -> ClientMessage | None:
    """Return a message of a client; None if it is no valid one.

    Args:
        data: Payload of the WebSocket message.
    """
    try:
        _tags.decode(data)
        return _messages.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
