"""Writing of a cut into a video file, without decoding or encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.packet import Packet

from streams.input.clips.packet_ring import Cut

__all__ = ["Clip", "clip_suffix", "write_clip"]

# Codecs that players expect in MP4; any other goes into Matroska.
_MP4_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Written clip.

    Args:
        codec: FFmpeg's name of the codec.
        start_s: Media time of the source in seconds at which the clip begins.
        seconds: Length in seconds.
        frames: Number of packets.
    """

    codec: str
    start_s: float
    seconds: float
    frames: int


def clip_suffix(cut: Cut) -> str:
    """Return the suffix of the file for a cut: `.mp4`, or `.mkv` for codecs that MP4 does not take."""
    return ".mp4" if cut.codec in _MP4_CODECS else ".mkv"


def write_clip(path: Path, cut: Cut) -> Clip:
    """Write a clip.

    Args:
        path: New file, with the suffix that `clip_suffix` returns.
        cut: Packets of the clip.

    Returns:
        Description of the clip.

    Raises:
        OSError: The file cannot be written.
        ValueError: The packets do not fit the container.
    """
    times = [packet.pts for packet in cut.packets if packet.pts is not None]
    decoding, start = decoding_times(times), min(times)
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    try:
        with av.open(str(path), "w", options=options) as output:
            stream = output.add_stream_from_template(cut.template)
            if cut.codec == "hevc" and path.suffix == ".mp4" and stream.codec_context.extradata:
                # Apple's players play no other; it needs the parameter sets outside of the packets.
                stream.codec_context.codec_tag = "hvc1"
            for packet, pts, dts in zip(cut.packets, times, decoding, strict=True):
                copy = cast("Packet[av.VideoStream]", Packet(bytes(packet)))
                copy.pts, copy.dts, copy.time_base = max(pts, dts) - start, dts - start, cut.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                output.mux(copy)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"the packets cannot be written as {path.suffix[1:]}: {error.strerror}") from error
    length = max(times) - start
    return Clip(
        codec=cut.codec,
        start_s=float(start * cut.time_base),
        seconds=float(length * cut.time_base),
        frames=len(times),
    )


def decoding_times(times: Sequence[int]) -> list[int]:
    """Return increasing decoding times for presentation times in decoding order.

    Decoding times of sources such as RTSP are often missing or wrong, and containers refuse those that step
    back.

    Args:
        times: Presentation times in the order of decoding.

    Returns:
        As many times, each above the one before, none after its presentation time as far as the times differ.
    """
    ordered = sorted(times)
    delay = max(shown - time for shown, time in zip(ordered, times, strict=True))
    decoding: list[int] = []
    for time in ordered:
        decoding.append(time - delay if not decoding else max(time - delay, decoding[-1] + 1))
    return decoding
