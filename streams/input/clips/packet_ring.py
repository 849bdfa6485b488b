"""Bounded buffer of the newest packets of one connection, from which clips are cut.

    ring = PacketRing(RingLimits(seconds=15))
    ring.begin(stream)
    for packet in container.demux(stream):
        ring.add(packet)
    clip = ring.cut(12.0, 22.0)

No I/O. One thread adds packets, others cut.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import av

if TYPE_CHECKING:
    from av.packet import Packet

    VideoPacket: TypeAlias = Packet[av.VideoStream]

__all__ = ["Cut", "PacketRing", "RingLimits"]

# A decoding time that steps back further than this is a jump of the source's clock.
_MAX_STEP_BACK_S = 1.0
# Memory of a packet besides its content: its objects in FFmpeg and Python. At a low bit rate it is the larger
# part.
_PACKET_BYTES = 600
_RAW_CODECS = frozenset({"rawvideo", "bmp", "wrapped_avframe", "v210", "v308", "v408", "v410", "yuv4"})


@dataclass(frozen=True, kw_only=True)
class RingLimits:
    """Limits of a packet ring.

    Args:
        seconds: Media time to keep, besides the time since the key frame before it.
        max_bytes: Most memory that all packets together may take.

    Raises:
        ValueError: A limit is not positive.
    """

    seconds: float
    max_bytes: int = 32_000_000

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.max_bytes <= 0:
            raise ValueError(f"limits of a packet ring must be above 0, not {self.seconds}, {self.max_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Packets of a clip, in decoding order, the first of which is a key frame.

    Args:
        packets: The packets, which must not be changed.
        time_base: Seconds per unit of their times.
        template: Stream with the codec's parameters.
        codec: FFmpeg's name of the codec.
    """

    packets: tuple[VideoPacket, ...]
    time_base: Fraction
    template: av.VideoStream
    codec: str


class PacketRing:
    """Newest packets of one connection.

    The oldest packet is always a key frame. When the packets since the last key frame alone exceed the limit,
    all are dropped until the next key frame.

    Args:
        limits: Limits of time and size.
    """

    def __init__(self, limits: RingLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._packets: deque[VideoPacket] = deque()
        # Key frames among them, each with the number of packets that were added before it.
        self._key_frames: deque[tuple[int, VideoPacket]] = deque()
        self._added = 0
        self._bytes = 0
        self._time_base = Fraction(1, 1000)
        self._template: av.VideoStream | None = None
        self._codec = ""
        # The stream's parameters are freed with its container; those of an output that is never written stay.
        self._holder: av.container.OutputContainer | None = None

    def begin(self, stream: av.VideoStream) -> None:
        """Take the parameters of the stream whose packets are going to be added.

        A stream of raw frames, which are too large to keep, leaves the ring empty.

        Raises:
            av.FFmpegError: The stream cannot be remuxed; the ring stays empty then.
        """
        if stream.codec_context.name in _RAW_CODECS:
            return
        holder = av.open(io.BytesIO(), "w", format="matroska")
        self._template = holder.add_stream_from_template(stream)
        self._holder = holder
        self._codec = stream.codec_context.name

    @property
    def has_packets(self) -> bool:
        """Whether the source has packets that can be kept, as opposed to raw frames."""
        return self._template is not None

    def add(self, packet: VideoPacket, time_base: Fraction) -> None:
        """Append a packet; packets without a time, and those before the first key frame, are left out.

        Args:
            packet: The packet. It is kept, not copied.
            time_base: Seconds per unit of its times.
        """
        if self._template is None or not packet.size or packet.pts is None:
            return
        with self._lock:
            if self._packets and self._jumps(packet, time_base):
                self._clear()
            if not self._packets and not packet.is_keyframe:
                return
            self._time_base = time_base
            if packet.is_keyframe:
                self._key_frames.append((self._added, packet))
            self._packets.append(packet)
            self._added += 1
            self._bytes += _memory(packet)
            self._trim()

    def cut(self, start_s: float, end_s: float) -> Cut | None:
        """Return the packets of a period, from the key frame before it on.

        Args:
            start_s: First media time in seconds.
            end_s: Last media time in seconds.

        Returns:
            The packets; None if there are none of that period.
        """
        with self._lock:
            packets, time_base, template = list(self._packets), self._time_base, self._template
        first = 0
        for index, packet in enumerate(packets):
            if packet.is_keyframe and _time_s(packet, time_base) <= start_s:
                first = index
        last = first
        while last < len(packets) and _time_s(packets[last], time_base) <= end_s:
            last += 1
        if template is None or last == first:
            return None
        return Cut(
            packets=tuple(packets[first:last]), time_base=time_base, template=template, codec=self._codec
        )

    def _jumps(self, packet: VideoPacket, time_base: Fraction) -> bool:
        """Return whether a packet does not follow the newest one."""
        newest = self._packets[-1]
        if time_base != self._time_base:
            return True
        step = _decoding_time(packet) - _decoding_time(newest)
        return float(step * time_base) < -_MAX_STEP_BACK_S

    def _trim(self) -> None:
        oldest_s = _time_s(self._packets[-1], self._time_base) - self._limits.seconds
        while len(self._key_frames) > 1:
            second, key_frame = self._key_frames[1]
            over = self._bytes > self._limits.max_bytes
            if not over and _time_s(key_frame, self._time_base) > oldest_s:
                return
            first, _ = self._key_frames.popleft()
            for _ in range(second - first):
                self._bytes -= _memory(self._packets.popleft())
        if self._bytes > self._limits.max_bytes:
            self._clear()

    def _clear(self) -> None:
        self._packets.clear()
        self._key_frames.clear()
        self._bytes = 0


def _memory(packet: VideoPacket) -> int:
    return packet.size + _PACKET_BYTES


def _decoding_time(packet: VideoPacket) -> int:
    time = packet.pts if packet.dts is None else packet.dts
    assert time is not None
    return time


def _time_s(packet: VideoPacket, time_base: Fraction) -> float:
    assert packet.pts is not None
    return float(packet.pts * time_base)
