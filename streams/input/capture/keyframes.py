"""Reassembly of keyframes that an RTSP server has split into several packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, cast

import av
from av.packet import Packet

__all__ = ["TimedPacket", "VideoPacket", "join_keyframes"]

VideoPacket: TypeAlias = "Packet[av.VideoStream]"
TimedPacket: TypeAlias = tuple[VideoPacket, float]
"""Packet and its arrival time in seconds of the capture's clock."""


_SPREAD_S = 0.1  # longest time in which the slices of one frame arrive


def join_keyframes(packets: Iterator[TimedPacket]) -> Iterator[TimedPacket]:
    """Join consecutive keyframe packets of the same time.

    GStreamer's `rtph264pay config-interval=-1` repeats the parameter sets before every slice, and FFmpeg
    takes each repetition for the start of a frame. With `x264enc tune=zerolatency`, which encodes several
    slices per frame, it would decode half a frame each time. Packets are joined only if they arrive together,
    because a camera whose time stamps do not advance also sends packets of the same time.
    """
    pending: TimedPacket | None = None
    for packet, arrival_s in packets:
        if pending:
            start, start_s = pending
            together = arrival_s - start_s < _SPREAD_S
            if packet.is_keyframe and together and (start.pts is None or start.pts == packet.pts):
                pending = _joined(start, packet), start_s
                continue
            yield pending
            pending = None
        if packet.is_keyframe:
            pending = packet, arrival_s
        else:
            yield packet, arrival_s
    if pending:
        yield pending


def _joined(start: VideoPacket, rest: VideoPacket) -> VideoPacket:
    packet = cast("VideoPacket", Packet(bytes(start) + bytes(rest)))
    packet.pts, packet.dts, packet.time_base = rest.pts, rest.dts, rest.time_base
    packet.is_keyframe = True
    return packet
