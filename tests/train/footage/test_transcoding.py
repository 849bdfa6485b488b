"""Tests of the transcoding of whole videos."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from train.footage.transcoding import (
    TRANSCODINGS,
    TranscodingFailed,
    TranscodingUnknown,
    choose_transcodings,
    transcode,
)

KEY = "0123456789abcdef"


def decoded(path: Path) -> tuple[str, list[NDArray[np.uint8]], float]:
    """Return the codec, the frames as RGB and the rate of a video."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video)]
        return video.codec_context.name, frames, float(video.average_rate or 0)


@pytest.fixture(scope="module")
def original(face_video: Path) -> list[NDArray[np.uint8]]:
    """Frames of the original."""
    return decoded(face_video)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the transcoded videos, which the tests share."""
    return tmp_path_factory.mktemp("transcoded")


@pytest.mark.parametrize("name", list(TRANSCODINGS))
def test_every_transcoding(
    name: str, face_video: Path, original: list[NDArray[np.uint8]], folder: Path
) -> None:
    """Codec, size, rate and content are as stated; a second call finds the file."""
    transcoding = TRANSCODINGS[name]
    path = transcode(face_video, transcoding, folder, key=KEY)
    written = path.stat().st_mtime_ns
    assert transcode(face_video, transcoding, folder, key=KEY).stat().st_mtime_ns == written
    codec, frames, rate = decoded(path)
    names = {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9", "mjpeg": "mjpeg"}
    assert names[transcoding.codec] in codec
    expected_rate = max(min(25, transcoding.max_rate), transcoding.frame_rate)
    assert rate == pytest.approx(expected_rate, abs=0.6)
    assert len(frames) == pytest.approx(4 * expected_rate, abs=2)
    height, width = original[0].shape[:2]
    assert frames[0].shape[:2] == (
        2 * round(height * transcoding.scale / 2),
        2 * round(width * transcoding.scale / 2),
    )
    brightness = np.mean(frames[len(frames) // 2]) / np.mean(original[50])
    assert brightness == pytest.approx({"dark": 0.35, "night": 0.1}.get(name, 1.0), abs=0.12)


def test_changes(face_video: Path, original: list[NDArray[np.uint8]], folder: Path) -> None:
    """Grey has no colour, upside down is turned by 180 degrees, a still shows the first frame only."""
    found = {
        name: decoded(transcode(face_video, TRANSCODINGS[name], folder, key=KEY))[1]
        for name in ("grey", "upside-down", "noisy-still")
    }
    assert np.ptp(found["grey"][20].astype(int), axis=2).mean() < 2
    turned = original[20][::-1, ::-1].astype(int)
    assert np.abs(found["upside-down"][20] - turned).mean() < 6
    first = original[0].astype(int)
    assert np.abs(found["noisy-still"][90] - first).mean() < 8
    assert (found["noisy-still"][90] != found["noisy-still"][80]).any()


def test_pictures_are_repeated_up_to_the_frame_rate(face_video: Path, folder: Path) -> None:
    """Fifteen pictures a second are shown twice each in 30 frames, but for what the encoder changes."""
    _, frames, _ = decoded(transcode(face_video, TRANSCODINGS["15in30"], folder, key=KEY))
    changes = np.array([np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(frames)])
    assert changes[0::2].max() < 0.5 * np.median(changes[1::2])


def test_mistakes(tmp_path: Path) -> None:
    """An unknown name, and a file that is no video; no partial file is left."""
    assert choose_transcodings(["all"]) == list(TRANSCODINGS.values())
    assert [chosen.name for chosen in choose_transcodings(["dark", "half", "dark"])] == ["dark", "half"]
    with pytest.raises(
        TranscodingUnknown, match=r"--transcode drak: unknown; choose all or some of h264-crf28"
    ):
        choose_transcodings(["drak"])
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(TranscodingFailed, match=r"text\.mp4: cannot be transcoded \(half\)"):
        transcode(text, TRANSCODINGS["half"], tmp_path, key=KEY)
    assert list(tmp_path.iterdir()) == [text]
