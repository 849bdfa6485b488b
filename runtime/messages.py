"""The messages on the wire: what unmask says to whoever listens, as values and as JSON.

    message = StreamMessage(stream="cam", state="live").stamp(seq=1, time=1735689600.25)
    encode(message)  # {"type":"stream","seq":1,"time":1735689600.25,"stream":"cam",…

Three messages are broadcast and numbered by one `seq`: `verdict`, `stream`, `heartbeat`. Two are written for
one client that joins, `hello` and `snapshot`; they carry the `seq` of the last broadcast before them.
Pure: no clock, no socket.

Source: `runtime/web/asyncapi.yaml` describes the same messages for other languages; the tests hold both
together.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict, get_args

PROTOCOL_VERSION = 1
HEARTBEAT_S = 1.0  # A client that hears nothing for several of these is right to think the connection dead.

State = Literal["warming", "real", "uncertain", "fake", "stale"]
StreamState = Literal["connecting", "live", "no_face", "too_slow", "stalled", "offline", "ended"]
Box: TypeAlias = tuple[float, float, float, float]

FACE_STATES: frozenset[str] = frozenset(get_args(State))
SCORED_STATES: frozenset[str] = frozenset({"real", "uncertain", "fake"})
STREAM_STATES: frozenset[str] = frozenset(get_args(StreamState))


class LatencyDict(TypedDict):
    """Holds milliseconds per stage, and from capture (files: from reading) to the verdict in `total`."""

    decode: float
    detect: float
    backbone: float
    head: float
    total: float


class VerdictDict(TypedDict):
    """Says what is thought of one face of one stream; see `VerdictMessage`."""

    type: Literal["verdict"]
    seq: int
    time: float
    stream: str
    face: int
    state: State
    p_fake: float | None
    box: list[float]
    fill: float
    pts_s: float
    captured: float | None
    latency_ms: LatencyDict | None


class StreamDict(TypedDict):
    """Says what has become of a stream; see `StreamMessage`."""

    type: Literal["stream"]
    seq: int
    time: float
    stream: str
    state: StreamState
    reason: str | None


class HealthDict(TypedDict):
    """Counts what one stream did since the program started; see `StreamHealth`."""

    stream: str
    state: StreamState
    analysed: int
    dropped: int
    reconnects: int


class HeartbeatDict(TypedDict):
    """Says that the program lives, even where no stream has anything to say; see `HeartbeatMessage`."""

    type: Literal["heartbeat"]
    seq: int
    time: float
    uptime_s: float
    streams: list[HealthDict]


class ThresholdsDict(TypedDict):
    """Holds the `p_fake` up to which a face is `real` and from which it is `fake`."""

    real: float
    fake: float


class HelloDict(TypedDict):
    """Opens every connection; see `Identity`."""

    type: Literal["hello"]
    seq: int
    time: float
    software: Literal["unmask"]
    version: str
    protocol: int
    session: str
    model: str | None
    engine: str | None
    thresholds: ThresholdsDict | None


class SnapshotDict(TypedDict):
    """Follows `hello`: the last message of every stream and of every face that still has a verdict."""

    type: Literal["snapshot"]
    seq: int
    time: float
    streams: list[StreamDict]
    verdicts: list[VerdictDict]


BroadcastDict: TypeAlias = VerdictDict | StreamDict | HeartbeatDict
MessageDict: TypeAlias = HelloDict | SnapshotDict | BroadcastDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Holds what one verdict cost, in milliseconds.

    Args:
        decode: From packet to picture.
        detect: Finding and following the faces.
        backbone: From crop to features.
        head: From the buffered features and the flicker to the logit; measuring the flicker is part of it.
        total: From capture to now for a live source; the time spent on the frame for a file.
    """

    decode: float
    detect: float
    backbone: float
    head: float
    total: float

    def __post_init__(self) -> None:
        for stage in ("decode", "detect", "backbone", "head", "total"):
            _check(f"latency {stage}", getattr(self, stage), low=0.0)

    def to_dict(self) -> LatencyDict:
        """Give the wire form, rounded to a microsecond."""
        return {
            "decode": round(float(self.decode), 3),
            "detect": round(float(self.detect), 3),
            "backbone": round(float(self.backbone), 3),
            "head": round(float(self.head), 3),
            "total": round(float(self.total), 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictMessage:
    """Says what is thought of one face at one moment.

    Args:
        stream: The stream's name.
        face: The track's id within the stream; never used twice.
        state: `warming`, `real`, `uncertain`, `fake` or `stale`; a face that is `stale` is forgotten.
        p_fake: 0..1, calibrated to equal priors; None exactly when the state is `warming` or `stale`.
        box: `(x, y, w, h)` as shares of the picture, 0..1; see `relative_box`.
        fill: The share of the window that holds features, 0..1.
        pts_s: Media time of the frame, seconds.
        captured: When a live frame was taken, Unix seconds; None for a file.
        latency_ms: What it cost; None only for `stale`, which no frame stands behind.

    Raises:
        ValueError: A value is out of its range or not a number, or score and state contradict each other.
    """

    type: ClassVar[Literal["verdict"]] = "verdict"

    stream: str
    face: int
    state: State
    p_fake: float | None
    box: Box
    fill: float
    pts_s: float
    captured: float | None = None
    latency_ms: Latency | None = None

    def __post_init__(self) -> None:
        if self.state not in FACE_STATES:
            raise ValueError(f"unknown face state {self.state!r}")
        if (self.p_fake is not None) != (self.state in SCORED_STATES):
            raise ValueError(f"a face that is {self.state} cannot have p_fake {self.p_fake}")
        if self.p_fake is not None:
            _check("p_fake", self.p_fake, low=0.0, high=1.0)
        _check("face", self.face, low=0)
        if len(self.box) != 4:
            raise ValueError(f"box must be (x, y, w, h), not {self.box}")
        for share in self.box:
            _check("box", share, low=0.0, high=1.0)
        _check("fill", self.fill, low=0.0, high=1.0)
        _check("pts_s", self.pts_s)
        if self.captured is not None:
            _check("captured", self.captured)
        if self.latency_ms is None and self.state != "stale":
            raise ValueError(f"a face that is {self.state} was computed, so latency_ms is needed")

    def stamp(self, seq: int, time: float) -> VerdictDict:
        """Give the wire form as the broadcast message number `seq`, at `time` in Unix seconds."""
        return {
            "type": "verdict",
            "seq": seq,
            "time": round(time, 3),
            "stream": self.stream,
            "face": int(self.face),
            "state": self.state,
            "p_fake": None if self.p_fake is None else round(float(self.p_fake), 6),
            "box": [round(float(share), 4) for share in self.box],
            "fill": round(float(self.fill), 4),
            "pts_s": round(float(self.pts_s), 3),
            "captured": None if self.captured is None else round(float(self.captured), 3),
            "latency_ms": None if self.latency_ms is None else self.latency_ms.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    """Says what has become of a stream.

    Args:
        stream: The stream's name.
        state: `connecting`, `live`, `no_face`, `too_slow`, `stalled`, `offline` or `ended`. A face has a
            verdict only while its stream is `live`.
        reason: Why, in one line without credentials; None where the state says it all.

    Raises:
        ValueError: The state is unknown.
    """

    type: ClassVar[Literal["stream"]] = "stream"

    stream: str
    state: StreamState
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.state not in STREAM_STATES:
            raise ValueError(f"unknown stream state {self.state!r}")

    def stamp(self, seq: int, time: float) -> StreamDict:
        """Give the wire form as the broadcast message number `seq`, at `time` in Unix seconds."""
        return {
            "type": "stream",
            "seq": seq,
            "time": round(time, 3),
            "stream": self.stream,
            "state": self.state,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHealth:
    """Counts what one stream did since the program started.

    Args:
        stream: The stream's name.
        state: Its state now.
        analysed: Due samples that were analysed.
        dropped: Due samples that got no verdict because the machine or the network was too slow.
        reconnects: Times the source was lost.

    Raises:
        ValueError: The state is unknown or a count is below 0.
    """

    stream: str
    state: StreamState
    analysed: int = 0
    dropped: int = 0
    reconnects: int = 0

    def __post_init__(self) -> None:
        if self.state not in STREAM_STATES:
            raise ValueError(f"unknown stream state {self.state!r}")
        for count in ("analysed", "dropped", "reconnects"):
            _check(count, getattr(self, count), low=0)

    def to_dict(self) -> HealthDict:
        """Give the wire form."""
        return {
            "stream": self.stream,
            "state": self.state,
            "analysed": int(self.analysed),
            "dropped": int(self.dropped),
            "reconnects": int(self.reconnects),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatMessage:
    """Says that the program lives; due every `HEARTBEAT_S`.

    Args:
        uptime_s: Seconds since the program started.
        streams: One entry per stream.
    """

    type: ClassVar[Literal["heartbeat"]] = "heartbeat"

    uptime_s: float
    streams: tuple[StreamHealth, ...] = ()

    def __post_init__(self) -> None:
        _check("uptime_s", self.uptime_s, low=0.0)

    def stamp(self, seq: int, time: float) -> HeartbeatDict:
        """Give the wire form as the broadcast message number `seq`, at `time` in Unix seconds."""
        return {
            "type": "heartbeat",
            "seq": seq,
            "time": round(time, 3),
            "uptime_s": round(float(self.uptime_s), 3),
            "streams": [health.to_dict() for health in self.streams],
        }


BroadcastMessage: TypeAlias = VerdictMessage | StreamMessage | HeartbeatMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Holds who speaks: what `hello` tells a client that joins.

    Args:
        version: unmask's version.
        session: Differs from one run of the program to the next; `seq` counts within one session.
        model: The bundle's name.
        engine: What runs it, as the engine describes itself.
        thresholds: The `p_fake` up to which a face is `real` and from which it is `fake`, both 0..1.
    """

    version: str
    session: str
    model: str | None = None
    engine: str | None = None
    thresholds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for threshold in self.thresholds or ():
            _check("threshold", threshold, low=0.0, high=1.0)

    def hello(self, seq: int, time: float) -> HelloDict:
        """Give the `hello` of a client that joins after the broadcast message number `seq`."""
        return {
            "type": "hello",
            "seq": seq,
            "time": round(time, 3),
            "software": "unmask",
            "version": self.version,
            "protocol": PROTOCOL_VERSION,
            "session": self.session,
            "model": self.model,
            "engine": self.engine,
            "thresholds": self.thresholds
            and {"real": float(self.thresholds[0]), "fake": float(self.thresholds[1])},
        }


def snapshot(seq: int, time: float, streams: list[StreamDict], verdicts: list[VerdictDict]) -> SnapshotDict:
    """Give the `snapshot` of a client that joins after the broadcast message number `seq`.

    Args:
        seq: The last broadcast message.
        time: Now, Unix seconds; the age of what is in the snapshot is counted from here.
        streams: The last message of every stream.
        verdicts: The last message of every face that has a verdict.

    Returns:
        The wire form.
    """
    return {
        "type": "snapshot",
        "seq": seq,
        "time": round(time, 3),
        "streams": streams,
        "verdicts": verdicts,
    }


def encode(message: MessageDict) -> str:
    """Write a message as one line of JSON, in ASCII and without spaces.

    Args:
        message: A stamped message.

    Returns:
        The line, without its line break. File names that are no valid Unicode survive as escapes.

    Raises:
        ValueError: A number is not finite, which JSON cannot say.
    """
    return json.dumps(message, allow_nan=False, separators=(",", ":"))


def relative_box(box: tuple[float, float, float, float], width: int, height: int) -> Box:
    """Turn a box in pixels into shares of the picture, cut off at its edges.

    Args:
        box: `(x, y, w, h)` in pixels; may reach over the edges.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.

    Returns:
        `(x, y, w, h)`, each 0..1, with `x + w` and `y + h` at most 1.
    """
    x, y, w, h = (float(value) for value in box)
    left, right = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + w))
    top, bottom = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + h))
    return (left, top, right - left, bottom - top)


def _check(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be within {low:g}..{high:g}, not {value}")
