"""Encoding of test videos: numbered grey frames, and a moving portrait."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from av.stream import Disposition
from skimage.data import astronaut

# The luma of a frame is 16 + 2 x index, within the limited range; flat frames at a fine quantiser are decoded
# exactly as they were encoded.
LUMA_START, LUMA_STEP, INDICES = 16, 2, 100


def write_video(
    path: Path,
    *,
    frames: int = 50,
    fps: int = 25,
    width: int = 320,
    height: int = 240,
    gop: int = 10,
    b_frames: int = 0,
    codec: Literal["libx264", "mpeg4", "mjpeg"] = "libx264",
    audio: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode flat grey frames whose brightness is their index modulo 100; the suffix sets the container."""
    coder_options = {"preset": "ultrafast", "qp": "8", "bf": str(b_frames)} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps, options={**coder_options, **(options or {})})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.gop_size = gop
        sound = container.add_stream("aac", rate=16000) if audio else None
        for index in range(frames):
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = LUMA_START + LUMA_STEP * (index % INDICES)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000 * frames // fps), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def write_decoding_order(path: Path, *, codec: str, frames: int = 75, fps: int = 25) -> Path:
    """Encode grey frames, as `write_video` does, with B-frames whose time stamps are in decoding order.

    Args:
        path: The suffix sets the container.
        codec: `libx264`, `libx265`, `mpeg4`, or `mpeg4 packed`: two frames in a packet, then an empty one, as
            DivX and XviD write them.
        frames: Number of frames.
        fps: Frames per second.
    """
    name, _, packed = codec.partition(" ")
    created = av.CodecContext.create(name, "w")
    assert isinstance(created, av.VideoCodecContext)
    created.width, created.height, created.pix_fmt = 320, 240, "yuv420p"
    created.time_base, created.framerate, created.gop_size = Fraction(1, fps), Fraction(fps), 24
    created.max_b_frames = 1 if packed else 3
    created.options = {
        "libx264": {"preset": "ultrafast", "qp": "8", "b-adapt": "0", "b-pyramid": "normal"},
        "libx265": {"preset": "ultrafast", "x265-params": "qp=8:bframes=3:b-adapt=0:log-level=none"},
        "mpeg4": {"b_strategy": "0", "qmin": "2", "qmax": "3"},
    }[name]
    packets = []
    for index in range(frames):
        planes = np.full((360, 320), 128, np.uint8)
        planes[:240] = LUMA_START + LUMA_STEP * (index % INDICES)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, fps)
        packets += [bytes(packet) for packet in created.encode(frame)]
    packets += [bytes(packet) for packet in created.encode(None)]
    if packed:
        packets = _packed(packets)
    with av.open(str(path), "w") as container:
        # PyAV refuses HEVC in AVI, though such files exist; the name of the codec is replaced afterwards.
        hevc_in_avi = name == "libx265" and path.suffix == ".avi"
        stream = container.add_stream("libx264" if hevc_in_avi else name, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, fps), 1
            packet.pts = packet.dts = index
            packet.is_keyframe = index == 0
            container.mux(packet)
    if hevc_in_avi:
        path.write_bytes(path.read_bytes().replace(b"H264", b"HEVC", 2))
    return path


def _packed(packets: list[bytes]) -> list[bytes]:
    """Join every B-frame with the frame before it, as the DivX encoder did."""
    start, b_frame, empty = b"\0\0\1\xb6", 2, b"\0\0\1\xb6\x51\x40\0"
    kinds = [data[data.index(start) + 4] >> 6 for data in packets]
    joined: list[bytes] = []
    for index, data in enumerate(packets):
        if kinds[index] == b_frame:
            joined[-1] += data
            joined.append(empty)
        else:
            # The decoder recognises packed frames by this mark.
            joined.append(data.replace(start, b"\0\0\1\xb2DivX503b1393p" + start) if index == 0 else data)
    return joined


def write_tracks(path: Path, *, widths: tuple[int, ...], default: int, frames: int = 25) -> Path:
    """Encode grey frames into one video track for each width, one of which is the default."""
    with av.open(str(path), "w") as container:
        tracks = []
        for number, width in enumerate(widths):
            track = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            assert isinstance(track, av.VideoStream)
            track.width, track.height, track.pix_fmt = width, 240, "yuv420p"
            track.disposition = Disposition.default if number == default else Disposition(0)
            tracks.append(track)
        for index in range(frames):
            for track in tracks:
                planes = np.full((360, track.width), 128, np.uint8)
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(track.encode(frame))
        for track in tracks:
            container.mux(track.encode(None))
    return path


def frame_index(image: av.VideoFrame) -> int:
    """Read the index of a frame of `write_video`, modulo 100, from its middle."""
    luma = image.to_ndarray(format="gray8" if image.format.name == "gray" else "yuv420p")
    return round((int(luma[image.height // 2, image.width // 2]) - LUMA_START) / LUMA_STEP)


def write_face_video(
    path: Path, *, seconds: float = 4.0, fps: int = 25, shrink: int = 1, upside_down: bool = False
) -> Path:
    """Encode a public-domain portrait that moves over a grey background, 640 x 360, smaller by `shrink`."""
    portrait = np.asarray(astronaut(), np.uint8)[:280, 80:360]  # type: ignore[no-untyped-call]
    height, width, _ = portrait.shape
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 640 // shrink, 360 // shrink, "yuv420p"
        video.codec_context.gop_size = fps
        for index in range(round(seconds * fps)):
            image = np.full((360, 640, 3), 90, np.uint8)
            left = 100 + round(40 * np.sin(2 * np.pi * index / (4 * fps)))
            image[40 : 40 + height, left : left + width] = portrait
            size = (video.width, video.height)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            image = np.ascontiguousarray(image[::-1, ::-1]) if upside_down else image
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path
