"""Whole videos through the whole chain: real files, the real detector, a small model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.commands.scan import run_scan
from runtime.engines.factory import detector_infer, open_engine
from runtime.engines.interface import Engine
from runtime.errors import EngineFailed
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.scan import BATCH_CROPS, NoVideos, Scanner, find_videos
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


def test_a_video_with_a_face_is_scored(scanner: Scanner, bundle: Bundle, face_video: Path) -> None:
    """Every sample counts: four seconds at 8 Hz are 32 samples, the first three of which fill no window."""
    seen: list[float] = []
    result = scanner.scan(face_video, on_progress=seen.append)
    assert (result.state, result.frames, result.error) == ("scored", 32, None)
    assert result.seconds == pytest.approx(4.0, abs=0.1)
    (face,) = result.faces
    assert face.windows == 32 - (bundle.min_frames - 1)
    assert face.seconds == 4.0
    assert result.p_fake == face.p_fake
    assert 0 < (result.p_fake or 0.0) < 1
    assert seen == sorted(seen)


def test_frames_share_calls_without_changing_the_score(
    bundle: Bundle, engine: Engine, infer: Infer, face_video: Path
) -> None:
    """Crops of several frames go through the backbone together; one by one gives the same score."""
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


def test_without_a_face_there_is_no_score(scanner: Scanner, clip: Path) -> None:
    """Flat pictures hold no face; that is a result, not an error."""
    result = scanner.scan(clip)
    assert (result.state, result.p_fake, result.faces, result.frames) == ("no_face", None, (), 32)


def test_a_clip_of_three_frames_is_too_short(
    scanner: Scanner, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """Too few samples for one window give no score."""
    result = scanner.scan(make_face_video(tmp_path / "three.mp4", seconds=3 / 25))
    assert (result.state, result.p_fake) == ("too_short", None)


def test_a_video_of_few_frames_a_second_is_too_slow(
    scanner: Scanner, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """A model of eight samples a second cannot be asked about three frames a second."""
    result = scanner.scan(make_face_video(tmp_path / "slow.mp4", seconds=5, fps=3))
    assert (result.state, result.p_fake) == ("too_slow", None)
    assert result.seconds == pytest.approx(5.0, abs=0.5)


@pytest.mark.parametrize(
    ("name", "content"), [("empty.mp4", b""), ("text.mp4", b"this is no video\n" * 99), ("gone.mp4", None)]
)
def test_what_cannot_be_read_says_why(
    scanner: Scanner, tmp_path: Path, name: str, content: bytes | None
) -> None:
    """Such a file has no score, and its error names it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = scanner.scan(path)
    assert (result.state, result.p_fake, result.frames) == ("unreadable", None, 0)
    assert result.error is not None
    assert name in result.error


def test_sound_alone_is_unreadable(scanner: Scanner, make_video: Callable[..., Path], tmp_path: Path) -> None:
    """A file without pictures is told from one without faces."""
    import av

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


def test_a_truncated_video_is_scored_as_far_as_it_goes(
    scanner: Scanner, make_face_video: Callable[..., Path], tmp_path: Path
) -> None:
    """A recording that was cut off gives the samples that are left."""
    whole = make_face_video(tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    result = scanner.scan(cut)
    assert result.state == "scored"
    assert 8 < result.frames < 32


def test_a_file_may_be_called_like_a_source(
    scanner: Scanner, face_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`scan` takes files only: one called `demo` is not the demo."""
    monkeypatch.chdir(tmp_path)
    Path("demo").write_bytes(face_video.read_bytes())
    result = scanner.scan(Path("demo"))
    assert (result.file, result.state) == ("demo", "scored")


def test_a_broken_engine_is_no_score(bundle: Bundle, engine: Engine, infer: Infer, face_video: Path) -> None:
    """The engine's error ends the scan; no file is reported as scored or unreadable for it."""

    def broken(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise EngineFailed("onnxruntime", "out of memory")

    with Batcher(broken) as batcher, pytest.raises(EngineFailed, match="out of memory"):
        Scanner(bundle, head=engine, batcher=batcher, infer=infer).scan(face_video)


def test_directories_give_their_videos(tmp_path: Path) -> None:
    """Video files at any depth, in order, each once; others and hidden ones only if they are named."""
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


def test_a_directory_without_videos_is_a_mistake(tmp_path: Path) -> None:
    """Scanning nothing would look like success."""
    (tmp_path / "notes.txt").touch()
    with pytest.raises(NoVideos, match="no video files"):
        list(find_videos([tmp_path]))


def test_the_report_in_json(
    small_bundle: Path, face_video: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each file, in order; one that cannot be read makes the exit code 2 and a line on stderr."""
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert run_scan([face_video, empty, clip], as_json=True, model=small_bundle) == 2
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["file"] for line in lines] == [str(face_video), str(empty), str(clip)]
    assert [line["state"] for line in lines] == ["scored", "unreadable", "no_face"]
    assert list(lines[0]) == ["file", "state", "p_fake", "faces", "seconds", "frames"]
    assert list(lines[0]["faces"][0]) == ["face", "p_fake", "windows", "seconds"]
    assert lines[1]["p_fake"] is None
    assert lines[1]["error"] in err
    assert len(err.splitlines()) == 1


def test_the_report_for_people(
    small_bundle: Path, face_video: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each file says its verdict, or why there is none."""
    assert run_scan([face_video, clip], model=small_bundle) == 0
    out, err = capsys.readouterr()
    assert "no_face" in out
    assert any(state in out for state in ("real", "uncertain", "fake"))
    assert err == ""
