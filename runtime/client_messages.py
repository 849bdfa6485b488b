"""The messages that clients may send: one struct each.

    request = parse_client_message(b'{"type":"request_previews","stream":"cam","width":640,"rate_hz":8}')

Everything else that a client sends is ignored. `runtime/serving/web/asyncapi.yaml` describes them for other
languages; a test compares the two. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from runtime.messages import MIN_VERDICT_HZ

StreamName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


class _ClientMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Fields of every message of a client."""

    # Text of the client's choice: the server then answers with a `result` that has it.
    id: Annotated[str, Meta(max_length=64)] | None = None


class AuthMessage(_ClientMessage, frozen=True, kw_only=True, tag="auth"):
    """Token of a client: its first message, or a later one to gain further rights.

    Args:
        token: The token.
    """

    token: Annotated[str, Meta(max_length=512)]


class PreviewRequest(_ClientMessage, frozen=True, kw_only=True, tag="request_previews"):
    """Request for frames as JPEG, until the next request about the same stream or the end of the connection.

    Args:
        stream: Name of the stream; None for all streams without a request of their own.
        width: Maximum width in pixels; 0 for no frames, None for what the request about all streams says.
        rate_hz: Maximum number of frames per second and stream.
    """

    stream: str | None = None
    width: Annotated[int, Meta(ge=0)] | None = 320
    rate_hz: Annotated[float, Meta(gt=0.0)] = 4.0


class AddSource(_ClientMessage, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="add_source"):
    """Request to watch one more source; needs the right `control`.

    Args:
        address: Source as on the command line.
        stream: Name of the stream; None for the host of the address or the name of the file.
        transport: Transport of RTSP video.
        rate_hz: Verdicts per second for each face; None for that of the program.
        threshold_real: Up to this `p_fake` a face is `real`; None for that of the program.
        threshold_fake: From this `p_fake` a face is `fake`; None for that of the program.
    """

    address: Annotated[str, Meta(min_length=1, max_length=2048)]
    stream: StreamName | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    rate_hz: Annotated[float, Meta(ge=MIN_VERDICT_HZ)] | None = None
    threshold_real: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    threshold_fake: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class RemoveSource(
    _ClientMessage, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="remove_source"
):
    """Request to stop to watch a source; needs the right `control`.

    Args:
        stream: Name of the stream.
    """

    stream: str


class RenameSource(
    _ClientMessage, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rename_source"
):
    """Request to give a stream another name; needs the right `control`.

    Args:
        stream: Name of the stream.
        name: New name.
    """

    stream: str
    name: StreamName


ClientMessage: TypeAlias = AuthMessage | PreviewRequest | AddSource | RemoveSource | RenameSource


class _Identified(msgspec.Struct):
    """Any message of which the client expects a result."""

    id: Annotated[str, Meta(max_length=64)]


_identified = msgspec.json.Decoder(_Identified)
_messages: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_client_message(data: bytes) -> ClientMessage | None:
    """Return a message of a client; None if it is no valid one.

    Args:
        data: Payload of the WebSocket message.
    """
    try:
        return _messages.decode(data)
    except _DECODE_ERRORS:
        return None


def explain_invalid(data: bytes) -> tuple[str, str] | None:
    """Return the `id` of an invalid message and the reason; None if its client expects no result.

    Args:
        data: Payload of the WebSocket message.
    """
    id_ = None
    try:
        id_ = _identified.decode(data).id
        _messages.decode(data)
    except msgspec.ValidationError as error:
        return None if id_ is None else (id_, str(error))
    except _DECODE_ERRORS:
        return None
    return None
