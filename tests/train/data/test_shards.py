"""Tests of writing shards and of resuming a preparation after a kill."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from streams.features.temporal_residuals import NUM_RESIDUALS
from tests.support.full_disk import full_disk
from train.data.clip_cutter import FaceClip
from train.data.shards import JOURNAL, PreparedWriter, PrepareError, ShardWriter
from train.data.videos import Video

SETTINGS = {"layout": "folder", "spec": {"size": 64}}


def video(name: str, *, fake: bool = False, split: str = "train") -> Video:
    """Return the facts about a video."""
    return Video(
        path=Path(f"{name}.mp4"),
        name=name,
        fake=fake,
        method="fake" if fake else "real",
        target=name,
        group=name,
        split=split,  # type: ignore[arg-type]
    )


def clip(content: str, frames: int = 3) -> FaceClip:
    """Return a clip whose frames are recognisable bytes."""
    return FaceClip(
        jpegs=tuple(f"{content}{i}".encode() for i in range(frames)),
        sample_hz=8.3333,
        height=71.26,
        residuals=np.full((frames, NUM_RESIDUALS), 0.5, np.float32),
    )


def members(path: Path) -> list[str]:
    """List a tar file with `tarfile`, which requires a valid end."""
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_shards_contain_whole_clips(tmp_path: Path) -> None:
    """A full shard is closed before the next clip, so the frames of a clip are in one shard."""
    writer = ShardWriter(tmp_path, "train", max_bytes=6000)
    shards = [writer.add(f"clip_{i}", clip(str(i))) for i in range(4)]
    writer.close()
    assert shards == ["train-000.tar"] * 2 + ["train-001.tar"] * 2
    parts = [*(f"{n:02}.jpg" for n in range(3)), "residuals.npy"]
    assert members(tmp_path / "train-001.tar") == [f"clip_{i}.{part}" for i in (2, 3) for part in parts]
    with tarfile.open(tmp_path / "train-000.tar") as tar:
        extracted = tar.extractfile("clip_1.02.jpg")
        assert extracted is not None
        assert extracted.read() == b"12"


def test_long_names_are_kept(tmp_path: Path) -> None:
    """Names longer than the 100 characters of the original tar format are supported."""
    name = "n" * 150
    writer = ShardWriter(tmp_path, "val", max_bytes=10_000)
    writer.add(name, clip("x", 1))
    writer.close()
    assert members(tmp_path / "val-000.tar") == [f"{name}.00.jpg", f"{name}.residuals.npy"]


@pytest.mark.parametrize("clips", [1, 2])
def test_an_interrupted_clip_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: int) -> None:
    """After an interruption the shards can be read and contain the clips before it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted_run() -> None:
        with PreparedWriter(tmp_path, SETTINGS, max_bytes=6000) as writer:
            for i in range(clips):
                writer.add(video(f"v{i}"), f"v{i}.mp4", [clip(str(i))])
            monkeypatch.setattr(np, "save", interrupt)
            writer.add(video("torn"), "torn.mp4", [clip("torn")])

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    found = [name for path in sorted(tmp_path.glob("*.tar")) for name in members(path)]
    parts = [*(f"{n:02}.jpg" for n in range(3)), "residuals.npy"]
    assert found == [f"v{i}_0.{part}" for i in range(clips) for part in parts]


def write_all(folder: Path, *, stop_after: int | None = None, max_bytes: int = 6000) -> None:
    """Write six videos in two splits, one of them unreadable; stop after some as a kill would."""
    with PreparedWriter(folder, SETTINGS, max_bytes=max_bytes) as writer:
        names = []
        for i in range(6):
            entry = video(f"v{i}", fake=i % 2 == 1, split="train" if i < 4 else "val")
            names.append(f"{entry.name}.mp4")
            if names[-1] in writer.records:
                continue
            if i == 2:
                writer.skip(entry, names[-1], "two\nlines", retry=True)
            else:
                writer.add(entry, names[-1], [clip(f"{i}a"), clip(f"{i}b", 2)])
            if stop_after is not None and i + 1 == stop_after:
                # A killed run leaves clips that are not in the journal, and an incomplete line.
                writer._writers[str(entry.split)].add("torn", clip("torn", 40))
                writer._writers[str(entry.split)].add("torn2", clip("torn", 40))
                writer._journal.write(b'{"video": "v5')
                return
        writer.finish(names, {"videos": 6})


def content(folder: Path) -> dict[str, bytes]:
    """Read all files except the journal, which depends on the stop."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != JOURNAL}


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 6])
def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    """Anything that is not in the journal is removed, including new shards."""
    write_all(tmp_path / "whole")
    write_all(tmp_path / "stopped", stop_after=stop_after)
    write_all(tmp_path / "stopped")
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_the_csv_files_list_clips_and_skipped_videos(tmp_path: Path) -> None:
    """clips.csv has a line per clip in the shards, skipped.csv one per video without a clip."""
    write_all(tmp_path)
    with (tmp_path / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    first = rows[0]
    assert first == {
        "shard": "train-000.tar",
        "clip": "v0_0",
        "fake": "0",
        "method": "real",
        "target": "v0",
        "source": "",
        "group": "v0",
        "frames": "3",
        "sample_hz": "8.333",
        "native_face_height_px": "71.3",
        "split": "train",
    }
    for row in rows:
        inside = [name for name in members(tmp_path / row["shard"]) if name.startswith(row["clip"] + ".")]
        assert len(inside) == int(row["frames"]) + 1
    assert (tmp_path / "skipped.csv").read_text() == "path,reason\nv2.mp4,two lines\n"
    assert json.loads((tmp_path / "prepared.json").read_text()) == {**SETTINGS, "videos": 6}


def test_a_later_line_of_the_journal_replaces_an_earlier_one(tmp_path: Path) -> None:
    """A repaired video that is tried again is no longer skipped."""
    write_all(tmp_path)
    with PreparedWriter(tmp_path, SETTINGS, max_bytes=6000) as writer:
        writer.add(video("v2"), "v2.mp4", [clip("2a")])
        writer.finish([f"v{i}.mp4" for i in range(6)], {})
    assert "v2_0," in (tmp_path / "clips.csv").read_text()
    assert (tmp_path / "skipped.csv").read_text() == "path,reason\n"


def test_other_settings_other_content_and_a_second_writer_are_refused(tmp_path: Path) -> None:
    """Data sets are not mixed, and files of the user are not changed."""
    write_all(tmp_path / "set")
    with (
        pytest.raises(PrepareError, match="started with another spec"),
        PreparedWriter(tmp_path / "set", {**SETTINGS, "spec": {"size": 96}}, max_bytes=6000),
    ):
        pass
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train-000.tar").write_bytes(b"mine")
    with (
        pytest.raises(PrepareError, match="not empty"),
        PreparedWriter(foreign, SETTINGS, max_bytes=6000),
    ):
        pass
    assert (foreign / "train-000.tar").read_bytes() == b"mine"
    with (
        PreparedWriter(tmp_path / "set", SETTINGS, max_bytes=6000),
        pytest.raises(PrepareError, match="another `prepare` is writing"),
        PreparedWriter(tmp_path / "set", SETTINGS, max_bytes=6000),
    ):
        pass


@pytest.mark.parametrize("shard", ["train-000.tar", "train-001.tar"])
@pytest.mark.parametrize("left", [None, 0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("straddling", [False, True])
def test_a_truncated_shard_is_not_resumed(
    tmp_path: Path, shard: str, left: float | None, straddling: bool
) -> None:
    """A shard that is missing or shorter than written, the last one or not, is an error with advice.

    The last length of a shard is in no line of the journal if clips of one video are in two shards.
    """
    if straddling:
        with PreparedWriter(tmp_path, SETTINGS, max_bytes=9000) as writer:
            writer.add(video("v0"), "v0.mp4", [clip(f"{i}") for i in range(6)])
    else:
        write_all(tmp_path)
    path = tmp_path / shard
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole[: round(left * len(whole))])
    before = content(tmp_path)
    with (
        pytest.raises(PrepareError, match=rf"{shard} is missing or shorter than the journal states; delete"),
        PreparedWriter(tmp_path, SETTINGS, max_bytes=9000 if straddling else 6000),
    ):
        pass
    assert content(tmp_path) == before


def test_a_full_disk_ends_the_run_in_one_line_and_it_is_resumed(tmp_path: Path) -> None:
    """Clips that are recorded are kept, and the shards are complete after the next run."""

    def fill() -> None:
        with PreparedWriter(tmp_path, SETTINGS, max_bytes=2**20) as writer, full_disk(20_000):
            for number in range(8):
                writer.add(video(f"v{number}"), f"v{number}.mp4", [clip(str(number))])

    with pytest.raises(PrepareError, match=r"cannot be written .*run `prepare` again to resume"):
        fill()
    with PreparedWriter(tmp_path, SETTINGS, max_bytes=2**20) as writer:
        done = set(writer.records)
        assert 0 < len(done) < 8
        for number in range(8):
            if f"v{number}.mp4" not in done:
                writer.add(video(f"v{number}"), f"v{number}.mp4", [clip(str(number))])
    assert len(members(tmp_path / "train-000.tar")) == 8 * 4


@pytest.mark.parametrize(
    ("number", "line"), [(1, b"[]"), (1, b"{}"), (2, b'{"video": "v0.mp4", "lab'), (2, b'{"other": 1}')]
)
def test_a_damaged_journal_is_reported(tmp_path: Path, number: int, line: bytes) -> None:
    """A run is not resumed from what cannot be read."""
    with PreparedWriter(tmp_path, SETTINGS, max_bytes=2**20) as writer:
        for name in ("v0", "v1"):
            writer.add(video(name), f"{name}.mp4", [clip(name)])
    lines = (tmp_path / JOURNAL).read_bytes().splitlines()
    lines[number - 1] = line
    (tmp_path / JOURNAL).write_bytes(b"\n".join([*lines, b""]))
    with pytest.raises(PrepareError, match=f"line {number} is damaged; delete the folder"):
        PreparedWriter(tmp_path, SETTINGS, max_bytes=2**20).__enter__()


def test_a_journal_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    """As on a file system that is read only."""
    (tmp_path / JOURNAL).mkdir()
    with pytest.raises(PrepareError, match="cannot be written"):
        PreparedWriter(tmp_path, SETTINGS, max_bytes=2**20).__enter__()
