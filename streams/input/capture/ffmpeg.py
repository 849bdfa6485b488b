"""One connection to a source through FFmpeg: opening, demuxing, decoding and capture times."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.logging
from av.codec.hwaccel import HWAccel
from av.packet import Packet
from av.stream import Discard, Disposition

from streams.errors import SourceError, SourceInvalid, SourceNotVideo, SourceUnavailable, SourceWaiting
from streams.input.capture.clock import CaptureClock, CatchUp, Pace
from streams.input.capture.delivery import Delivery, PacketHistory, delivery_of
from streams.input.capture.display_transform import PixelAspect
from streams.input.capture.ffmpeg_errors import UNSEEKABLE, UNSEEKABLE_PIPE, source_error
from streams.input.capture.interface import DecodedFrame, Timeouts
from streams.input.capture.keyframes import TimedPacket, VideoPacket, join_keyframes
from streams.input.capture.media_time import ClockCheck, PresentationTimes
from streams.input.clips.packet_ring import PacketRing
from streams.input.devices.hwaccel import hwaccel_problem
from streams.input.pushed.standard_input import StandardInput
from streams.input.source import LISTEN_S, Source, device_url, format_available

__all__ = ["FFmpegCapture"]

# PyAV's default, which keeps FFmpeg's log off the terminal; restored in case another library has changed it.
# Errors arrive as exceptions.
av.logging.set_level(None)

_UNDECODABLE_S = 10.0
# One thread decodes 1080p as fast as the frames are analysed. A second costs up to 12 % more CPU time.
_FILE_THREADS, _THREADED_PIXELS = 2, 1920 * 1088
_PLAUSIBLE_FPS = (1, 240)

# These formats contain no times: FFmpeg counts frames at an assumed rate, which may differ from the camera's.
_UNTIMED_FORMATS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_ARRIVAL_TIME_BASE = Fraction(1, 90000)
# Senders of these protocols send in real time.
_REAL_TIME_SCHEMES = frozenset({"rtmp", "rtmps", "rtmpt", "rtmpts", "rtp", "srt", "udp"})

# Time between attempts to read a new segment.
_SEGMENT_POLL_S = 0.2

# A small file may announce frames that fill the memory when they are decoded: 8K fits, 16K does not. FFmpeg
# checks it before it allocates a frame, also where the size changes in the middle.
MAX_SIZE = (8192, 4352)
_LIMITS = {"max_pixels": str(MAX_SIZE[0] * MAX_SIZE[1])}

# FFmpeg's demuxers for ANSI art accept any text file as a video of a terminal.
_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "idf", "adf"})


class FFmpegCapture:
    """Source that is read through FFmpeg.

    Args:
        source: Source to open.
        timeouts: Longest silence while opening and reading.
        stop: Ends `frames` once it is set.
        clock: Monotonic seconds.
        history: Packets of earlier connections to the same source, which are not decoded again.
        packets: Receives every packet of the video; None to keep none.

    Raises:
        SourceError: The source cannot be opened or contains no video.
    """

    def __init__(
        self,
        source: Source,
        *,
        timeouts: Timeouts,
        stop: threading.Event,
        clock: Callable[[], float],
        history: PacketHistory,
        packets: PacketRing | None = None,
    ) -> None:
        self._source = source
        self._timeouts = timeouts
        self._stop = stop
        self._clock = clock
        self._capture_clock = CaptureClock()
        self._catch_up = CatchUp()
        self._clock_check = ClockCheck() if _sends_in_real_time(source) else None
        self._received = False
        self._history = history
        self._ring = packets
        self.corrupt = 0
        self.skipped = 0
        self.wrong_clock: str | None = None
        self.not_accelerated = None if source.hwaccel is None else hwaccel_problem(source.hwaccel)
        self._container = self._open(timeouts.read_s)
        self.delivery = self._delivery()
        if self.delivery.segmented and not self.delivery.finite:
            # PyAV sets the timeout on opening only. A timeout in the middle of a segment would lose the
            # segment.
            self._container.close()
            self._container = self._open(timeouts.segment_s)
        try:
            self._stream = self._find_video()
        except SourceError:
            self._container.close()
            raise
        self._pixel_aspect = PixelAspect(self._stream)
        self._pace = Pace() if source.kind == "pipe" and self.delivery.real_time else None
        reorders = self.delivery.finite and bool(self._stream.codec_context.has_b_frames)
        self._presentation = PresentationTimes(None if self.delivery.real_time else 0, reorders=reorders)
        self._untimed = self.delivery.real_time and self._container.format.name in _UNTIMED_FORMATS
        self._time_base = _ARRIVAL_TIME_BASE if self._untimed else self._stream.time_base or Fraction(1, 1000)
        self._set_threads()
        if source.hwaccel and not self.not_accelerated and not self._stream.codec_context.is_hwaccel:
            self.not_accelerated = f"it does not decode {self._stream.codec_context.name}"
        self._begin_ring()
        rate = self._stream.average_rate or self._stream.guessed_rate
        low, high = _PLAUSIBLE_FPS
        self.fps = float(rate) if rate and low <= rate <= high else None

    def close(self) -> None:
        """Close the connection."""
        self._container.close()

    def frames(self) -> Iterator[DecodedFrame]:
        """Decode every frame until the source ends or is stopped.

        Yields:
            Frames in presentation order; damaged ones are counted in `corrupt` instead.

        Raises:
            SourceError: Reading failed, or a live source was silent for too long.
        """
        real_time, finite = self.delivery.real_time, self.delivery.finite
        packets = self._new_packets() if self.delivery.segmented and not finite else self._packets()
        if self._source.kind == "rtsp" and self._stream.codec_context.name in ("h264", "hevc"):
            packets = join_keyframes(packets)
        last_image_s = self._clock()
        for packet, arrival_s in packets:
            self._check_clock(packet, arrival_s)
            if self._untimed:
                packet.pts = packet.dts = round(arrival_s / self._time_base)
            if self._ring is not None:
                self._ring.add(packet, self._time_base)
            if real_time and not self._keeps_up(packet, arrival_s):
                self.skipped += 1
                continue
            self._presentation.feed(packet.dts if packet.pts is None else packet.pts)
            started_s = self._clock()
            images = self._decode(packet)
            decoded_s = self._clock()
            decode_ms = (decoded_s - started_s) * 1000 / max(1, len(images))
            for image in images:
                if frame := self._timed(image, decode_ms):
                    yield frame
            if images:
                last_image_s = decoded_s
            elif not finite and decoded_s - last_image_s > _UNDECODABLE_S:
                reason, advice = "its data cannot be decoded", "check the camera's settings"
                raise SourceUnavailable(self._source.spec, reason, advice)

    def _delivery(self) -> Delivery:
        source, container = self._source, self._container
        if source.kind == "pipe":
            # A recording states its duration; anything else comes from a program that is recording now.
            return Delivery(real_time=not (container.duration and container.duration > 0), finite=True)
        return delivery_of(
            live=source.live,
            formats=container.format.name,
            duration=container.duration,
            size=-1 if source.kind == "file" else container.size,
        )

    def _open(self, read_s: float) -> av.container.InputContainer:
        source, timeouts = self._source, self._timeouts
        if source.format and not format_available(source.format):
            reason = f"this system's FFmpeg cannot read {source.format}"
            raise SourceInvalid(source.spec, reason, "give an rtsp:// address or a file")
        target = StandardInput(self._stop, source.spec) if source.kind == "pipe" else device_url(source)
        # A listening source first waits for its sender.
        open_s = timeouts.open_s + (LISTEN_S if "listen" in source.options else 0)
        started_s = self._clock()
        try:
            return av.open(
                target,
                "r",
                format=source.format,
                # Also for the frames that FFmpeg decodes to find out what the source contains.
                options={**source.options, **_LIMITS},
                metadata_errors="replace",
                # The CPU decodes what the hardware cannot.
                hwaccel=HWAccel(source.hwaccel) if source.hwaccel and not self.not_accelerated else None,
                timeout=None if source.kind in ("file", "pipe") else (open_s, read_s),
            )
        except (av.FFmpegError, OSError) as raised:
            failure: Exception = raised
        # Outside the except block, so that the original error, which contains the password, is not chained.
        if source.listens and isinstance(failure, TimeoutError | av.error.ExitError):
            raise SourceWaiting(source.spec, "nobody sends to it")
        if self._clock() - started_s >= 0.95 * open_s and source.kind not in ("file", "pipe"):
            # FFmpeg reports an interrupted handshake as invalid data.
            raise SourceUnavailable(source.spec, f"no answer within {open_s:g} s")
        if source.kind == "file" and _is_empty(source):
            raise SourceNotVideo(source.spec, "the file is empty")
        raise source_error(failure, source)

    def _find_video(self) -> av.VideoStream:
        """Return the default, else the first, decodable video stream; discard the packets of all others."""
        spec, container = self._source.spec, self._container
        if set(container.format.name.split(",")) & _TEXT_FORMATS:
            raise SourceNotVideo(spec, "is text, not video")
        if not container.streams and not self.delivery.finite:
            raise SourceUnavailable(spec, "it has no segment yet", "start its publisher")
        videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not videos:
            reason = "it has sound only" if container.streams.audio else "it has no video stream"
            raise SourceNotVideo(spec, reason)
        # A stream whose codec has no decoder has no context.
        decodable = [s for s in videos if cast("object", s.codec_context) is not None]
        if not decodable:
            raise SourceNotVideo(spec, "no decoder for its video format", "convert it to H.264")
        chosen = next((s for s in decodable if s.disposition & Disposition.default), decodable[0])
        for stream in container.streams:
            if stream is not chosen:
                stream.discard = Discard.all
        _check_size(spec, chosen, finite=self.delivery.finite)
        return chosen

    def _set_threads(self) -> None:
        context = self._stream.codec_context
        context.options = _LIMITS
        if self.delivery.real_time:
            # Frame threads add latency. Slice threads switch off error concealment, and with it the flag that
            # marks damaged frames.
            context.thread_count = 1
        elif context.width * context.height <= _THREADED_PIXELS:
            context.thread_count = 1
        else:
            context.thread_type = "AUTO"
            context.thread_count = _FILE_THREADS

    def _begin_ring(self) -> None:
        if self._ring is not None:
            # A stream that cannot be remuxed has no clips, and is watched all the same.
            with contextlib.suppress(av.FFmpegError, ValueError):
                self._ring.begin(self._stream)

    def _check_clock(self, packet: VideoPacket, arrival_s: float) -> None:
        """Switch to arrival times if the source's clock is wrong."""
        if self._clock_check is None or self._untimed or packet.pts is None:
            return
        self.wrong_clock = self._clock_check.observe(arrival_s, float(packet.pts * self._time_base))
        if self.wrong_clock is not None:
            self._untimed, self._time_base = True, _ARRIVAL_TIME_BASE
            # `CatchUp` keeps its state: if the wrong clock has made it skip packets, it skips to a keyframe.
            self._capture_clock = CaptureClock()
            self._presentation = PresentationTimes(None)

    def _keeps_up(self, packet: VideoPacket, arrival_s: float) -> bool:
        """Update the capture clock; return whether the packet should be decoded, not skipped to catch up."""
        if packet.pts is None:
            return True
        pts_s = float(packet.pts * self._time_base)
        self._capture_clock.observe(arrival_s, pts_s)
        lag_s = arrival_s - (self._capture_clock.captured_s(pts_s) or arrival_s)
        return self._catch_up.accepts(lag_s=lag_s, keyframe=packet.is_keyframe, now_s=self._clock())

    def _decode(self, packet: VideoPacket) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError:
            # Damaged data costs this frame; the decoder continues with the next packet.
            self.corrupt += 1
            return []

    def _timed(self, image: av.VideoFrame, decode_ms: float) -> DecodedFrame | None:
        """Add the times of a decoded frame; None if it is damaged or its time is unknown."""
        duration = image.duration or round(1 / (self._time_base * Fraction(self.fps or 25)))
        pts = self._presentation.present(image.pts, duration=duration)
        captured_s = None
        if pts is not None and self.delivery.real_time:  # damaged frames show a change of the clock too
            captured_s = self._capture_clock.present(float(pts * self._time_base))
        if image.is_corrupt:
            self.corrupt += 1
            return None
        if pts is None:  # the first frame of an RTP stream can arrive before its clock is known
            return None
        return DecodedFrame(
            image=image,
            pts=pts,
            time_base=self._time_base,
            captured_s=captured_s,
            decode_ms=decode_ms,
            pixel_aspect=self._pixel_aspect.current(),
        )

    def _packets(self) -> Iterator[TimedPacket]:
        """Demux the packets of the video stream until the source ends or is stopped."""
        source, read_s = self._source, self._timeouts.read_s
        failure: Exception | None = None
        packets = self._container.demux()
        last_packet_s = self._clock()
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as raised:
                failure = raised
                break
            if packet is None:
                break
            now_s = self._clock()
            if self.delivery.real_time and not self.delivery.finite and now_s - last_packet_s >= read_s:
                # After its timeout FFmpeg first returns the packets that it had buffered.
                raise SourceUnavailable(source.spec, f"no frame for {read_s:g} s")
            if packet.stream_index != self._stream.index:
                continue
            if not self.delivery.finite and not packet.size:
                break  # the flush packet: a server that closes the stream causes no error
            self._received = True
            if self._pace is not None and packet.pts is not None:
                self._stop.wait(self._pace.delay_s(now_s, float(packet.pts * self._time_base)))
                now_s = self._clock()
            yield cast("VideoPacket", packet), now_s
            last_packet_s = self._clock()
        if not self._stop.is_set():
            yield from self._end_of_packets(failure)

    def _new_packets(self) -> Iterator[TimedPacket]:
        """Demux a broadcast in segments: wait for each, and skip the packets of earlier connections."""
        source, segment_s = self._source, self._timeouts.segment_s
        failure: Exception | None = None
        # Whether a packet of this connection has been skipped, and whether the new part has begun.
        repeated = started = False
        last_packet_s = self._clock()
        while not self._stop.is_set() and failure is None:
            try:
                for packet in self._container.demux(self._stream):
                    if self._stop.is_set():
                        return
                    if not packet.size:
                        continue
                    is_new = self._history.add(packet.pts, bytes(packet))
                    # The new part begins with a keyframe. All packets after it are new, even if a restarted
                    # publisher sends the same video again.
                    started = started or (is_new and (not repeated or packet.is_keyframe))
                    repeated = repeated or not is_new
                    if started:
                        yield packet, self._clock()
                        last_packet_s = self._clock()
            except (av.FFmpegError, OSError) as raised:
                failure = raised
                continue
            # FFmpeg reports the end before the timeout if the playlist has not changed.
            if self._clock() - last_packet_s >= segment_s:
                raise SourceUnavailable(source.spec, f"no new segment for {segment_s:g} s")
            self._stop.wait(_SEGMENT_POLL_S)
        if isinstance(failure, av.error.ExitError):
            raise SourceUnavailable(source.spec, f"no new segment for {segment_s:g} s")
        if failure is not None:
            raise source_error(failure, source, connected=True)

    def _needs_seeking(self) -> bool:
        """Return whether the source is an MP4 that cannot be seeked, whose frames may be before its index."""
        mp4 = "mp4" in self._container.format.name.split(",")
        return self._source.kind in ("url", "pipe") and self.delivery.finite and mp4

    def _end_of_packets(self, failure: Exception | None) -> Iterator[TimedPacket]:
        """Raise the error that ended the packets; after damage in a file, flush the decoder instead."""
        source = self._source
        if source.kind == "pipe" and not self._received and self._needs_seeking():
            raise SourceNotVideo(source.spec, *UNSEEKABLE_PIPE)
        if isinstance(failure, av.error.InvalidDataError) and source.kind in ("file", "pipe"):
            # The rest of the file is damaged or missing; everything before it is still decoded.
            self.corrupt += 1
            yield cast("VideoPacket", Packet(0)), self._clock()
        elif failure is not None and not self._received and self._needs_seeking():
            raise SourceNotVideo(source.spec, *UNSEEKABLE)
        elif source.listens and not isinstance(failure, av.error.ExitError):
            raise SourceWaiting(source.spec, "the sender has left", "start it again")
        elif isinstance(failure, av.error.ExitError):
            raise SourceUnavailable(source.spec, f"no data for {self._timeouts.read_s:g} s")
        elif failure is not None:
            raise source_error(failure, source, connected=True)
        elif not self.delivery.finite:
            raise SourceUnavailable(source.spec, "the stream stopped")


def _sends_in_real_time(source: Source) -> bool:
    """Return whether packets arrive as they are captured; a web server may send a recording at any rate."""
    return source.kind in ("rtsp", "webcam", "screen") or source.address.scheme in _REAL_TIME_SCHEMES


def _check_size(spec: str, stream: av.VideoStream, *, finite: bool) -> None:
    """Refuse frames that are too large to decode; FFmpeg reports them with their size or with none."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_SIZE[0] * MAX_SIZE[1]:
        reason = f"its frames of {width} x {height} pixels are too large"
        raise SourceNotVideo(spec, reason, f"scale it to at most {MAX_SIZE[0]} x {MAX_SIZE[1]}")
    if finite and not width * height:
        reason = f"its frames are damaged, or larger than {MAX_SIZE[0]} x {MAX_SIZE[1]} pixels"
        raise SourceNotVideo(spec, reason, "check it in a player, or scale it down")


def _is_empty(source: Source) -> bool:
    try:
        return Path(source.address.reveal().removeprefix("file:")).stat().st_size == 0
    except OSError:
        return False
