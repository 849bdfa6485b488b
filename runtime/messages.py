"""The messages that unmask publishes: one struct each, checked on construction, and their JSON form.

    message = StreamMessage(stream="cam", state="live").stamp(seq=1, time=1735689600.25)
    encode(message)  # b'{"type":"stream","seq":1,"time":1735689600.25,"stream":"cam",…'

`verdict`, `stream` and `heartbeat` are broadcast to every client and numbered by one `seq`. `hello` and
`snapshot` are sent to one client when it connects, with the `seq` of the last broadcast message before them.
So is `result`, which answers a client; it may overtake broadcast messages that wait for the client.
`preview` is the header of a frame for clients that request frames; see `runtime.client_messages`.

These structs are the definition of the messages. `runtime/serving/web/asyncapi.yaml` describes them for other
languages; a test compares the two. No I/O, no clock.
"""

from __future__ import annotations

import json
import math
import numbers
from copy import copy
from functools import cache
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, get_args

import msgspec
from msgspec import Meta

# 2: `fill` became `window_fill`; `latency_ms` has `crop`, which was part of `backbone`.
PROTOCOL_VERSION: Final = 2
# Clients treat a connection as dead after several intervals without a message.
HEARTBEAT_S = 1.0
# A page shows a verdict for 3 s. A verdict is made from the windows of 4 s, at least two of them.
MIN_VERDICT_HZ: Final = 0.5

FaceState = Literal["warming", "real", "uncertain", "fake", "stale"]
StreamState = Literal[
    "connecting",
    "live",
    "no_face",
    "too_slow",
    "stalled",
    "overloaded",
    "offline",
    "ended",
    "removed",
]

UncertainReason = Literal["no_motion", "turned", "turned_away", "too_small", "dark", "no_colour"]

SCORED_STATES: frozenset[str] = frozenset({"real", "uncertain", "fake"})

Count = Annotated[int, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0, extra={"decimals": 6})]
Share = Annotated[float, Meta(ge=0.0, le=1.0, extra={"decimals": 4})]
Seconds = Annotated[float, Meta(extra={"decimals": 3})]
PositiveSeconds = Annotated[float, Meta(ge=0.0, extra={"decimals": 3})]
Milliseconds = Annotated[float, Meta(ge=0.0, extra={"decimals": 3})]
RelativeBox: TypeAlias = tuple[Share, Share, Share, Share]


class _Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Struct whose fields are checked against their annotations, and rounded, on construction."""

    def __post_init__(self) -> None:
        twin, decimals = _unchecked_twin(type(self))
        try:
            values = {name: _plain(name, getattr(self, name), digits) for name, digits in decimals.items()}
            checked = msgspec.convert(values, twin)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from error
        for name in decimals:
            msgspec.structs.force_setattr(self, name, getattr(checked, name))


class _Message(_Checked, frozen=True, kw_only=True, tag_field="type"):
    """Fields of every message."""

    # 0 until the message is published.
    seq: Count = 0
    time: PositiveSeconds = 0.0

    @property
    def type(self) -> str:
        """Name of the message type, as in the JSON."""
        return str(self.__struct_config__.tag)

    def stamp(self, seq: int, time: float) -> Self:
        """Return a copy with the number of the (last) broadcast message and the time in Unix seconds."""
        if not (seq >= 0 and 0 <= time < math.inf):
            raise ValueError(f"a message cannot have the number {seq} and the time {time}")
        stamped = copy(self)  # without a second check of the other fields
        msgspec.structs.force_setattr(stamped, "seq", int(seq))
        msgspec.structs.force_setattr(stamped, "time", round(float(time), 3))
        return stamped


class Latency(_Checked, frozen=True, kw_only=True):
    """Time spent on one frame in milliseconds, per stage.

    Args:
        decode: From packet to frame.
        detect: Detecting and tracking the faces.
        crop: Cropping the faces.
        backbone: From crops to features, including the wait for crops of other streams in the same batch.
        head: From features to logits, for all faces: temporal residuals and both classifiers.
        total: From capture to verdict for a live source; all time spent on the frame for a file.

    Raises:
        ValueError: A value is negative or not finite.
    """

    decode: Milliseconds
    detect: Milliseconds
    crop: Milliseconds
    backbone: Milliseconds
    head: Milliseconds
    total: Milliseconds


class VerdictMessage(_Message, frozen=True, kw_only=True, tag="verdict"):
    """Verdict on one face.

    Args:
        stream: Name of the stream.
        face: Track id within the stream; never reused.
        state: `warming`, `real`, `uncertain`, `fake` or `stale`. The id of a `stale` face comes again
            only if it had to make room for other faces and has its next turn.
        p_fake: Calibrated probability of a fake at equal priors, 0..1, from the mean logit of the last
            four seconds; None exactly when the state is `warming` or `stale`.
        box: `(x, y, w, h)` in shares of the frame, 0..1; see `relative_box`.
        window_fill: Filled share of the window, 0..1.
        pts_s: Media time of the frame in seconds.
        captured: Unix seconds at which a live frame was captured; None for a file.
        latency_ms: Time spent on the frame; None only for `stale`, which no frame caused.
        reason: Why the image is the cause of `uncertain`: `no_motion` (a still image, for which temporal
            evidence does not exist), `turned` (a face on its side or upside down), `turned_away` (from the
            camera), `too_small`, `dark` or `no_colour` (a grey image); None if the score is.

    Raises:
        ValueError: A value is out of range or not finite, or `p_fake`, `latency_ms` or `reason` contradicts
            the state.
    """

    stream: str
    face: Count
    state: FaceState
    p_fake: Probability | None
    box: RelativeBox
    window_fill: Share
    pts_s: Seconds
    captured: Seconds | None = None
    latency_ms: Latency | None = None
    reason: UncertainReason | None = None

    def __post_init__(self) -> None:
        _Message.__post_init__(self)
        if (self.p_fake is not None) != (self.state in SCORED_STATES):
            raise ValueError(f"a verdict in the state {self.state!r} cannot have p_fake {self.p_fake}")
        if self.latency_ms is None and self.state != "stale":
            raise ValueError(f"a verdict in the state {self.state!r} needs latency_ms")
        if self.reason is not None and self.state != "uncertain":
            raise ValueError(f"a verdict in the state {self.state!r} cannot have the reason {self.reason!r}")


class Thresholds(_Checked, frozen=True, kw_only=True):
    """Thresholds on `p_fake` at which a state begins; it ends `hysteresis` beyond, see `HelloMessage`.

    Args:
        real: Up to this `p_fake` a face is `real`.
        fake: From this `p_fake` a face is `fake`.
    """

    real: Probability
    fake: Probability


class StreamMessage(_Message, frozen=True, kw_only=True, tag="stream"):
    """State of one stream.

    Args:
        stream: Name of the stream.
        state: `connecting`, `live`, `no_face`, `too_slow`, `stalled`, `overloaded`, `offline`, `ended` or
            `removed`, after which the stream no longer exists. Faces have verdicts only while their stream is
            `live`.
        reason: Cause in one line without credentials; None where the state needs no explanation.
        thresholds: Thresholds of this stream; None for those in `hello`.

    Raises:
        ValueError: The state is unknown.
    """

    stream: str
    state: StreamState
    reason: str | None = None
    thresholds: Thresholds | None = None


class DroppedBy(_Checked, frozen=True, kw_only=True):
    """Due samples of one stream without a verdict, by cause.

    Args:
        queue: Left out or dropped, because the analysis was too slow.
        skipped: Within packets that were skipped to catch up with the source.
        corrupt: Within damaged data.
        refused: Not analysed, because the source was too slow or had just disconnected.
        repeated: Repetitions of the previous frame, which contain nothing new.

    Raises:
        ValueError: A count is negative.
    """

    queue: Count = 0
    skipped: Count = 0
    corrupt: Count = 0
    refused: Count = 0
    repeated: Count = 0


class StreamHealth(_Checked, frozen=True, kw_only=True):
    """Counters of one stream since the program started.

    Args:
        stream: Name of the stream.
        state: Current state.
        analysed: Due samples that were analysed.
        dropped: Due samples without a verdict, whatever the cause.
        dropped_by: The same by cause.
        reconnects: Number of times that the source was lost.
        waiting: Faces in view that have no verdict now, because there are more than can be analysed at once.
            Faces take turns.

    Raises:
        ValueError: The state is unknown or a count is negative.
    """

    stream: str
    state: StreamState
    analysed: Count = 0
    dropped: Count = 0
    dropped_by: DroppedBy = msgspec.field(default_factory=DroppedBy)
    reconnects: Count = 0
    waiting: Count = 0


class HeartbeatMessage(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Message sent every `HEARTBEAT_S`, with the counters of all streams.

    Args:
        uptime_s: Seconds since the program started.
        streams: Counters of every stream.
    """

    uptime_s: PositiveSeconds
    streams: tuple[StreamHealth, ...] = ()


class HelloMessage(_Message, frozen=True, kw_only=True, tag="hello"):
    """First message on every connection.

    Args:
        software: Always `unmask`.
        version: Version of unmask.
        protocol: Version of these messages.
        session: Id of this run of the program; `seq` counts within one session.
        model: Name of the model bundle.
        engine: Inference engine in use.
        thresholds: Thresholds of all streams without their own; None if unknown.
        hysteresis: Distance beyond its threshold at which a state is left; None if unknown.
    """

    software: Literal["unmask"] = "unmask"
    version: str
    protocol: Literal[2] = PROTOCOL_VERSION
    session: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    engine: str | None = None
    thresholds: Thresholds | None = None
    hysteresis: Probability | None = None


class SnapshotMessage(_Message, frozen=True, kw_only=True, tag="snapshot"):
    """Second message on every connection: the current state.

    Args:
        streams: Last message of every stream.
        verdicts: Last message of every face whose verdict is still valid.
    """

    streams: tuple[StreamMessage, ...] = ()
    verdicts: tuple[VerdictMessage, ...] = ()


class PreviewHeader(_Checked, frozen=True, kw_only=True, tag_field="type", tag="preview"):
    """Header of a frame as JPEG; the verdicts with the same `stream` and `pts_s` are about this frame.

    Args:
        stream: Name of the stream.
        pts_s: Media time of the frame in seconds.
        captured: Unix seconds at which a live frame was captured; None for a file.
        width: Width of the JPEG in pixels.
        height: Height of the JPEG in pixels.
    """

    stream: str
    pts_s: Seconds
    captured: Seconds | None = None
    width: Count
    height: Count


class ResultMessage(_Message, frozen=True, kw_only=True, tag="result"):
    """Answer to a message of one client that has an `id`.

    Args:
        id: The `id` of the client's message.
        error: Why it was refused, with advice; None if it was carried out.
    """

    id: Annotated[str, Meta(max_length=64)]
    error: str | None = None


BroadcastMessage: TypeAlias = VerdictMessage | StreamMessage | HeartbeatMessage
Message: TypeAlias = HelloMessage | SnapshotMessage | BroadcastMessage | ResultMessage


def encode(message: Message | PreviewHeader) -> bytes:
    """Return a message as one line of JSON in ASCII, without spaces and without a line break."""
    # Not msgspec's own encoder: it refuses file names that are not valid Unicode, and it leaves characters
    # such as U+2028, at which some readers split lines, unescaped.
    return json.dumps(msgspec.to_builtins(message), allow_nan=False, separators=(",", ":")).encode("ascii")


def encode_preview(header: PreviewHeader, jpeg: bytes) -> bytes:
    """Return a binary message: the length of the header as 4 bytes in network order, the header, the JPEG."""
    encoded = encode(header)
    return len(encoded).to_bytes(4, "big") + encoded + jpeg


def relative_box(box: tuple[float, float, float, float], width: int, height: int) -> RelativeBox:
    """Convert a box in pixels into shares of the frame, clipped to its edges.

    Args:
        box: `(x, y, w, h)` in pixels; may reach beyond the frame.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Returns:
        `(x, y, w, h)`, each 0..1, with `x + w` and `y + h` at most 1.
    """
    x, y, w, h = (float(value) for value in box)
    left, right = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + w))
    top, bottom = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + h))
    return (left, top, right - left, bottom - top)


@cache
def _unchecked_twin(kind: type[_Checked]) -> tuple[type[msgspec.Struct], dict[str, int | None]]:
    """Return a struct with the same fields but without `__post_init__`, and the decimals of every field."""
    fields = msgspec.structs.fields(kind)
    twin = msgspec.defstruct(kind.__name__, [(field.name, field.type) for field in fields])
    return twin, {field.name: _decimals(field.type) for field in fields}


def _decimals(annotation: Any) -> int | None:
    """Find the number of decimals anywhere in an annotation."""
    if isinstance(annotation, Meta):
        return None if annotation.extra is None else annotation.extra["decimals"]
    return next((found for part in get_args(annotation) if (found := _decimals(part)) is not None), None)


def _plain(name: str, value: Any, decimals: int | None) -> Any:
    """Convert NumPy numbers to Python's, and round floats."""
    kind = type(value)
    if kind is tuple:
        return tuple([_plain(name, item, decimals) for item in value])
    if kind is str or kind is int or value is None or isinstance(value, msgspec.Struct):
        return value
    if kind is not float and isinstance(value, numbers.Integral):
        return int(value)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    return float(value) if decimals is None else round(float(value), decimals)
