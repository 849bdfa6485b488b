"""Tests of scanning with real files, the real face detector and a small model of random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.errors import EngineFailed, NoVideos
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import BATCH_CROPS, Scanner, find_videos
from streams.faces.detector import Infer


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def infer() -> Infer:
    return detector_infer("onnxruntime")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime") as engine:
        yield engine


@pytest.fixture
def scanner(bundle: Bundle, engine: Engine, infer: Infer) -> Iterator[Scanner]:
    with Batcher(engine.features) as batcher:
        yield Scanner(bundle, head=engine, batcher=batcher, infer=infer)


def test_video_with_a_face_is_scored(scanner: Scanner, bundle: Bundle, face_video: Path) -> None:
    """Four seconds at 8 Hz are 32 samples; the first three have no window yet."""
    progress: list[float] = []
    result = scanner.scan(face_video, on_progress=progress.append)
    assert (result.state, result.frames, result.error) == ("scored", 32, None)
    assert result.seconds == pytest.approx(4.0, abs=0.1)
    (face,) = result.faces
    assert face.windows == 32 - (bundle.min_frames - 1)
    assert face.seconds == pytest.approx(4.0, abs=0.1)
    assert result.p_fake == face.p_fake
    assert 0 < (result.p_fake or 0.0) < 1
    assert progress == sorted(progress)


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [({"shrink": 5}, "uncertain", "too_small"), ({"upside_down": True}, "turned", None)],
)
def test_face_without_a_decision(
    scanner: Scanner,
    make_face_video: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    state: str,
    reason: str | None,
) -> None:
    """The same face, small or upside down in the file, is neither real nor fake."""
    result = scanner.scan(make_face_video(tmp_path / "face.mp4", **changes))
    assert (result.state, result.reason) == (state, reason)
    assert result.faces


def remuxed(video: Path, path: Path, *, starts_s: list[float]) -> Path:
    """Write a video several times into one file, at these times."""
    with av.open(str(path), "w") as target:
        stream = None
        for start_s in starts_s:
            with av.open(str(video)) as container:
                source = container.streams.video[0]
                stream = stream or target.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    shift = round(start_s / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    target.mux(packet)
    return path


def test_discontinuities_do_not_count_as_length(scanner: Scanner, face_video: Path, tmp_path: Path) -> None:
    """Two recordings of four seconds, a hundred seconds apart, are eight seconds, and a face each."""
    path = remuxed(face_video, tmp_path / "joined.mkv", starts_s=[1.0, 101.0])
    result = scanner.scan(path)
    assert (result.state, result.frames) == ("scored", 64)
    assert result.seconds == pytest.approx(8.0, abs=0.2)
    assert [face.seconds for face in result.faces] == pytest.approx([4.0, 4.0], abs=0.1)


def test_recordings_joined_byte_by_byte_are_scored(
    scanner: Scanner, face_video: Path, tmp_path: Path
) -> None:
    """Media time jumps back in the middle."""
    part = remuxed(face_video, tmp_path / "part.ts", starts_s=[1.0]).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part + part)
    result = scanner.scan(path)
    assert result.state == "scored"
    assert result.seconds == pytest.approx(8.0, abs=0.3)
    assert len(result.faces) == 2


def test_frames_share_calls_without_changing_the_score(
    bundle: Bundle, engine: Engine, infer: Infer, face_video: Path
) -> None:
    """Crops of several frames share backbone calls; the score equals that of one crop per call."""
    sizes: list[int] = []

    def counting(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(crops))
        return engine.features(crops)

    with Batcher(counting) as batcher:
        together = Scanner(bundle, head=engine, batcher=batcher, infer=infer).scan(face_video)
    assert max(sizes) == BATCH_CROPS
    with Batcher(engine.features, max_crops=1) as batcher:
        apart = Scanner(bundle, head=engine, batcher=batcher, infer=infer).scan(face_video)
    assert together.p_fake == pytest.approx(apart.p_fake, abs=1e-5)


def test_video_without_a_face_has_no_score(scanner: Scanner, clip: Path) -> None:
    """A video of flat frames is `no_face`, which is not an error."""
    result = scanner.scan(clip)
    assert (result.state, result.p_fake, result.faces, result.frames) == ("no_face", None, (), 32)


def test_video_of_three_frames_is_too_short(
    scanner: Scanner, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """With fewer samples than `min_frames` there is no score."""
    result = scanner.scan(make_face_video(tmp_path / "three.mp4", seconds=3 / 25))
    assert (result.state, result.p_fake) == ("too_short", None)


def test_video_of_low_frame_rate_is_too_slow(
    scanner: Scanner, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Three frames per second are too few for a model of 8 Hz."""
    result = scanner.scan(make_face_video(tmp_path / "slow.mp4", seconds=5, fps=3))
    assert (result.state, result.p_fake) == ("too_slow", None)
    assert result.seconds == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize(
    ("name", "content"), [("empty.mp4", b""), ("text.mp4", b"this is no video\n" * 99), ("gone.mp4", None)]
)
def test_unreadable_file_has_an_error(
    scanner: Scanner, tmp_path: Path, name: str, content: bytes | None
) -> None:
    """It has no score, and the error contains its name."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = scanner.scan(path)
    assert (result.state, result.p_fake, result.frames) == ("unreadable", None, 0)
    assert result.error is not None
    assert name in result.error


def test_audio_file_is_unreadable(scanner: Scanner, make_video: Callable[..., Path], tmp_path: Path) -> None:
    """A file without a video stream is `unreadable`, not `no_face`."""
    source, path = make_video(tmp_path / "both.mp4", audio=True), tmp_path / "sound.m4a"
    with av.open(str(source)) as both, av.open(str(path), "w") as sound:
        stream = sound.add_stream_from_template(both.streams.audio[0])
        for packet in both.demux(both.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                sound.mux(packet)
    result = scanner.scan(path)
    assert result.state == "unreadable"
    assert "sound only" in (result.error or "")


def test_truncated_video_is_scored_up_to_its_end(
    scanner: Scanner, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """The samples of a truncated recording that can be decoded are scored."""
    whole = make_face_video(tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    result = scanner.scan(cut)
    assert result.state == "scored"
    assert 8 < result.frames < 32


def test_file_may_be_named_like_a_source(
    scanner: Scanner, face_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file named `demo` is scanned as a file."""
    monkeypatch.chdir(tmp_path)
    Path("demo").write_bytes(face_video.read_bytes())
    result = scanner.scan(Path("demo"))
    assert (result.file, result.state) == ("demo", "scored")


def test_engine_error_ends_the_scan(bundle: Bundle, engine: Engine, infer: Infer, face_video: Path) -> None:
    """The error is raised; the file is reported neither as scored nor as unreadable."""

    def broken(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise EngineFailed("onnxruntime", "out of memory")

    with Batcher(broken) as batcher, pytest.raises(EngineFailed, match="out of memory"):
        Scanner(bundle, head=engine, batcher=batcher, infer=infer).scan(face_video)


def test_directories_are_searched_for_videos(tmp_path: Path) -> None:
    """Video files are found at any depth, in order and once; other and hidden files only if named."""
    names = ["b/two.MOV", "a.mp4", "b/one.webm", "b/notes.txt", ".hidden/x.mp4", "b/.y.mp4", "film.bin"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_videos([tmp_path, tmp_path / "film.bin", tmp_path / "a.mp4"])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "a.mp4",
        "b/one.webm",
        "b/two.MOV",
        "film.bin",
    ]


def test_directory_without_videos_is_an_error(tmp_path: Path) -> None:
    """A directory without video files raises `NoVideos`."""
    (tmp_path / "notes.txt").touch()
    with pytest.raises(NoVideos, match="no video files"):
        list(find_videos([tmp_path]))
