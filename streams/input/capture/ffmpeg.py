"""One connection to a source: opens it with FFmpeg, decodes it and tells when its pictures were captured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import av
import av.logging
from av.packet import Packet
from av.stream import Discard, Disposition

from streams.errors import (
    SourceError,
    SourceInvalid,
    SourceNotVideo,
    SourceUnavailable,
)
from streams.input.capture.clock import CaptureClock, CatchUp
from streams.input.capture.ffmpeg_errors import source_error
from streams.input.source import Source, device_url, format_available

__all__ = ["Capture", "DecodedFrame", "Timeouts", "open_capture"]

# FFmpeg writes to the terminal unless someone takes its messages. PyAV does so by default; this restores it
# where another library has changed it. Nothing is lost: what matters comes as an exception.
av.logging.set_level(None)

VideoPacket: TypeAlias = "Packet[av.VideoStream]"

_UNDECODABLE_S = 10.0
_FILE_THREADS = 2
_BELIEVABLE_FPS = (1, 240)

# These carry no times; FFmpeg counts pictures at a rate it assumes, which a live camera does not keep.
_UNTIMED_FORMATS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_ARRIVAL_TIME_BASE = Fraction(1, 90000)

# FFmpeg's demuxer for ANSI art takes any text file for a film of a terminal.
_NOT_VIDEO_FORMATS = frozenset({"tty", "bin", "xbin", "idf", "adf"})


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a source may keep silent.

    Args:
        open_s: While connecting, for the answer and again for the first data.
        read_s: Between two packets. FFmpeg can only be interrupted by its own timeout, and `Reader.stop` has
            to end within two seconds, so 1.5 is the most.
    """

    open_s: float = 5.0
    read_s: float = 1.5

    def __post_init__(self) -> None:
        if not self.open_s > 0:
            raise ValueError(f"open_s must be positive, not {self.open_s}")
        if not 0 < self.read_s <= 1.5:
            raise ValueError(f"read_s must be in (0, 1.5], not {self.read_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrame:
    """A decoded picture and its times."""

    image: av.VideoFrame
    pts: int
    time_base: Fraction
    captured_s: float | None
    """When a live picture was captured, in seconds of the capture's clock."""

    decode_ms: float


class Capture(Protocol):
    """An open source."""

    fps: float | None
    corrupt: int
    """Pictures lost so far because their data was damaged."""

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode every picture until the source ends or `stop` is set; raises SourceError."""

    def close(self) -> None:
        """Let go of the source."""


def open_capture(
    source: Source,
    *,
    timeouts: Timeouts,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> Capture:
    """Open a source.

    Args:
        source: What to open.
        timeouts: How long it may keep silent.
        stop: Ends `frames` early once set.
        clock: Seconds that never go back.

    Returns:
        The open capture; the caller closes it.

    Raises:
        SourceError: It cannot be opened.
    """
    if source.kind == "demo":
        return DemoCapture(stop=stop, clock=clock)
    return VideoCapture(source, timeouts=timeouts, stop=stop, clock=clock)


class VideoCapture:
    """A source read through FFmpeg."""

    def __init__(
        self, source: Source, *, timeouts: Timeouts, stop: threading.Event, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._timeouts = timeouts
        self._stop = stop
        self._clock = clock
        self.corrupt = 0
        self._container = self._open()
        try:
            self._stream = self._find_video()
        except SourceError:
            self._container.close()
            raise
        context = self._stream.codec_context
        if source.live:
            # Frame threads would hold pictures back. Slice threads switch off the decoder's concealment, and
            # with it the mark that tells damaged pictures.
            context.thread_count = 1
        else:
            context.thread_type = "AUTO"
            context.thread_count = _FILE_THREADS
        rate = self._stream.average_rate or self._stream.guessed_rate
        low, high = _BELIEVABLE_FPS
        self.fps = float(rate) if rate and low <= rate <= high else None

    def close(self) -> None:
        """Let go of the source."""
        self._container.close()

    def _open(self) -> av.container.InputContainer:
        source, timeouts = self._source, self._timeouts
        if source.format and not format_available(source.format):
            reason = f"this system's FFmpeg cannot read {source.format}"
            raise SourceInvalid(source.spec, reason, "give an rtsp:// address or a file")
        url = device_url(source)
        started_s = self._clock()
        try:
            return av.open(
                url,
                "r",
                format=source.format,
                options=dict(source.options),
                metadata_errors="replace",
                timeout=None if source.kind == "file" else (timeouts.open_s, timeouts.read_s),
            )
        except (av.FFmpegError, OSError) as raised:
            failure: Exception = raised
        # Out of the except block: the original holds the address with its password and would come along.
        if self._clock() - started_s >= 0.95 * timeouts.open_s and source.kind != "file":
            # An interrupted handshake looks like invalid data to FFmpeg.
            raise SourceUnavailable(source.spec, f"no answer within {timeouts.open_s:g} s")
        if source.kind == "file" and _is_empty(source):
            raise SourceNotVideo(source.spec, "the file is empty")
        raise source_error(failure, source=source.spec, kind=source.kind)

    def _find_video(self) -> av.VideoStream:
        spec, container = self._source.spec, self._container
        if set(container.format.name.split(",")) & _NOT_VIDEO_FORMATS:
            raise SourceNotVideo(spec, "is text, not video")
        films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not films:
            audio = "it has sound only" if container.streams.audio else "it holds no pictures"
            raise SourceNotVideo(spec, audio)
        # A codec without a decoder has no context.
        decodable = [s for s in films if cast("object", s.codec_context) is not None]
        if not decodable:
            raise SourceNotVideo(spec, "no decoder for its video format", "convert it to H.264")
        for stream in container.streams:
            if stream is not decodable[0]:
                stream.discard = Discard.all
        return decodable[0]

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode every picture until the source ends or `stop` is set.

        Yields:
            Pictures in the order they are shown; damaged ones are counted instead.

        Raises:
            SourceError: Reading failed, or a live source fell silent.
        """
        source = self._source
        packets = self._packets()
        if source.kind == "rtsp" and self._stream.codec_context.name in ("h264", "hevc"):
            packets = _whole(packets)
        untimed = source.live and self._container.format.name in _UNTIMED_FORMATS
        time_base = _ARRIVAL_TIME_BASE if untimed else self._stream.time_base or Fraction(1, 1000)
        anchor, catch_up = CaptureClock(), CatchUp()
        next_pts: int | None = None if source.live else 0
        picture_s = self._clock()
        for packet, arrival_s in packets:
            if untimed:
                packet.pts = packet.dts = round(arrival_s / time_base)
            if source.live and packet.pts is not None:
                pts_s = float(packet.pts * time_base)
                anchor.observe(arrival_s, pts_s)
                lag_s = arrival_s - (anchor.captured_s(pts_s) or arrival_s)
                if not catch_up.wants(lag_s=lag_s, keyframe=packet.is_keyframe, now_s=self._clock()):
                    continue
            started_s = self._clock()
            decoded = self._decode(packet)
            now_s = self._clock()
            decode_ms = (now_s - started_s) * 1000 / max(1, len(decoded))
            for frame in decoded:
                pts = next_pts if frame.pts is None else frame.pts
                picture_s = now_s
                if frame.is_corrupt:
                    self.corrupt += 1
                elif pts is not None:  # RTP's first picture may come before its clock is known
                    yield DecodedFrame(
                        image=frame,
                        pts=pts,
                        time_base=time_base,
                        captured_s=anchor.captured_s(float(pts * time_base)) if source.live else None,
                        decode_ms=decode_ms,
                    )
                if pts is not None:
                    next_pts = pts + (frame.duration or round(1 / (time_base * Fraction(self.fps or 25))))
            if source.live and now_s - picture_s > _UNDECODABLE_S and not catch_up.skipping:
                raise SourceUnavailable(
                    source.spec, "its data cannot be decoded", "check the camera's settings"
                )

    def _decode(self, packet: VideoPacket) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError:
            # Damaged data costs this picture; the decoder goes on with the next packet.
            self.corrupt += 1
            return []

    def _packets(self) -> Iterator[tuple[VideoPacket, float]]:
        source, live, read_s = self._source, self._source.live, self._timeouts.read_s
        failure: Exception | None = None
        packets = self._container.demux()
        silent_since_s = self._clock()
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as raised:
                failure = raised
                break
            if packet is None:
                break
            now_s = self._clock()
            if live and now_s - silent_since_s >= read_s:
                # When its time is over, FFmpeg first gives out what it still held.
                raise SourceUnavailable(source.spec, f"no picture for {read_s:g} s")
            if packet.stream_index != self._stream.index:
                continue
            if live and not packet.size:
                break  # the flush: a server that is gone ends the stream without any error
            yield cast("VideoPacket", packet), now_s
            silent_since_s = self._clock()
        if self._stop.is_set():
            return
        if isinstance(failure, av.error.InvalidDataError) and source.kind == "file":
            # The rest is damaged or cut off: what could be read has been.
            self.corrupt += 1
            yield cast("VideoPacket", Packet(0)), self._clock()  # flushes the decoder
        elif isinstance(failure, av.error.ExitError):
            raise SourceUnavailable(source.spec, f"no data for {read_s:g} s")
        elif failure is not None:
            raise source_error(failure, source=source.spec, kind=source.kind, connected=True)
        elif live:
            raise SourceUnavailable(source.spec, "the stream stopped")


def _is_empty(source: Source) -> bool:
    try:
        return Path(source.url.removeprefix("file:")).stat().st_size == 0
    except OSError:
        return False


def _whole(packets: Iterator[tuple[VideoPacket, float]]) -> Iterator[tuple[VideoPacket, float]]:
    """Join the pieces of keyframes that a server has cut up.

    GStreamer's `rtph264pay config-interval=-1` repeats the parameter sets before every slice, and FFmpeg
    takes each repetition for the start of a new picture. Of `x264enc tune=zerolatency`, which makes several
    slices, it would decode half a picture each time.
    """
    held: tuple[VideoPacket, float] | None = None
    for packet, arrival_s in packets:
        if held:
            start, start_s = held
            if packet.is_keyframe and (start.pts is None or start.pts == packet.pts):
                held = _joined(start, packet), start_s
                continue
            yield held
            held = None
        if packet.is_keyframe:
            held = packet, arrival_s
        else:
            yield packet, arrival_s
    if held:
        yield held


def _joined(start: VideoPacket, rest: VideoPacket) -> VideoPacket:
    packet = cast("VideoPacket", Packet(bytes(start) + bytes(rest)))
    packet.pts, packet.dts, packet.time_base = rest.pts, rest.dts, rest.time_base
    packet.is_keyframe = True
    return packet


class DemoCapture:
    """The built-in demo as a live camera: its pictures come at their own pace."""

    def __init__(self, *, stop: threading.Event, clock: Callable[[], float]) -> None:
        self._stop = stop
        self._clock = clock
        self.fps: float | None = 25.0
        self.corrupt = 0

    def close(self) -> None:
        """Let go of the source."""

    def frames(self) -> Iterator[DecodedFrame]:
        """Make pictures until `stop` is set.

        Yields:
            One picture every 1 / fps seconds of the clock.
        """
        from streams.synthesis.demo import demo_frames  # loads the portrait

        time_base = Fraction(1, 25)
        frames = demo_frames(fps=25)
        start_s: float | None = None
        while True:
            started_s = self._clock()
            pts, rgb = next(frames)
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            made_s = self._clock()
            due_s = float(pts * time_base)
            # A machine too slow to draw every picture in time shows them slower, not later and later.
            start_s = made_s - due_s if start_s is None else max(start_s, made_s - due_s)
            if self._stop.wait(max(0.0, start_s + due_s - made_s)):
                return
            picture.pts, picture.time_base = pts, time_base
            yield DecodedFrame(
                image=picture,
                pts=pts,
                time_base=time_base,
                captured_s=start_s + due_s,
                decode_ms=(made_s - started_s) * 1000,
            )
