"""Tests of preparing small data sets: every layout, bad files, kills, and crashes of a worker."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

import train.data.prepare
import unmask
from train.data.clip_cutter import ClipSpec
from train.data.layouts import LayoutError
from train.data.prepare import PrepareError, prepare
from train.data.shards import JOURNAL
from train.data.splits import check_no_leak

Film = Callable[..., Path]

SPEC = ClipSpec(size=48, sample_hz=10, frames=8, min_frames=4, per_video=2)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Read the index, and check that all frames of each clip are in its shard."""
    with (folder / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    check_no_leak([row["group"] for row in rows], [row["split"] for row in rows])
    for row in rows:
        with tarfile.open(folder / row["shard"]) as tar:
            for index in range(int(row["frames"])):
                member = tar.extractfile(f"{row['clip']}.{index:02}.jpg")
                assert member is not None
                image = cv2.imdecode(np.frombuffer(member.read(), np.uint8), cv2.IMREAD_COLOR)
                assert image is not None
                assert image.shape == (48, 48, 3)
    return rows


def skipped_of(folder: Path) -> dict[str, str]:
    """Read the list of videos without a clip, with the reasons."""
    with (folder / "skipped.csv").open(newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def content(folder: Path) -> dict[str, bytes]:
    """Read all files except the journal."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != JOURNAL}


def test_a_folder_with_good_and_bad_files(tmp_path: Path, film: Film) -> None:
    """Good videos become clips, bad ones lines in skipped.csv; a second run tries unreadable ones again."""
    data, out = tmp_path / "data", tmp_path / "out"
    whole = film(data / "real" / "a.mp4")
    film(data / "fake" / "swap" / "a.mp4", brightness=0.8)
    film(data / "real" / "wall.mp4", face=False)
    film(data / "real" / "short.mp4", frames=2)
    (data / "fake" / "text.mp4").write_text("not a video")
    (data / "fake" / "empty.mp4").touch()
    film(data / "real" / "cut.mkv").write_bytes(film(tmp_path / "cut.mkv").read_bytes()[:9000])

    screen = io.StringIO()
    found = prepare(data, out, spec=SPEC, workers=2, console=Console(file=screen, force_terminal=True))
    rows = rows_of(out)
    assert "7/7" in screen.getvalue()
    assert (found.videos, found.clips) == (7, len(rows))
    assert {row["clip"] for row in rows} >= {"real_a_0", "real_a_1", "swap_a_0", "swap_a_1"}
    swap = next(row for row in rows if row["clip"] == "swap_a_0")
    assert (swap["fake"], swap["method"], swap["group"], swap["frames"]) == ("1", "swap", "a", "8")
    assert float(swap["sample_hz"]) == pytest.approx(10)
    assert 40 < float(swap["native_face_height_px"]) < 192
    skipped = skipped_of(out)
    assert found.skipped == len(skipped)
    assert "no face" in skipped["real/wall.mp4"]
    assert "no face for 4 samples" in skipped["real/short.mp4"]
    assert {"fake/text.mp4", "fake/empty.mp4"} < set(skipped)
    assert json.loads((out / "prepared.json").read_text())["clips"] == len(rows)

    before = content(out)
    (data / "fake" / "text.mp4").write_bytes(whole.read_bytes())
    again = prepare(data, out, spec=SPEC, workers=1)
    assert (again.clips, again.skipped) == (found.clips + 2, found.skipped - 1)
    assert {row["clip"] for row in rows_of(out)} == {row["clip"] for row in rows} | {
        "fake_text_0",
        "fake_text_1",
    }
    assert before["clips.csv"] != (out / "clips.csv").read_bytes()


def make_ffpp(root: Path, film: Film) -> None:
    """Write a pair of FaceForensics++ with its official split."""
    for stem in ("035", "036"):
        film(root / "original_sequences/youtube/c23/videos" / f"{stem}.mp4")
    film(root / "manipulated_sequences/Deepfakes/c23/videos/035_036.mp4")
    (root / "splits").mkdir()
    for side, pairs in (("train", []), ("val", []), ("test", [["036", "035"]])):
        (root / "splits" / f"{side}.json").write_text(json.dumps(pairs))


def make_celeb_df(root: Path, film: Film) -> None:
    """Write two people of Celeb-DF-v2, one face swap, and a test list."""
    film(root / "Celeb-real/id0_0000.mp4")
    film(root / "Celeb-real/id1_0000.mp4")
    film(root / "Celeb-synthesis/id0_id1_0000.mp4")
    lines = "1 Celeb-real/id0_0000.mp4\n1 Celeb-real/id1_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
    (root / "List_of_testing_videos.txt").write_text(lines)


def make_dfdc(root: Path, film: Film) -> None:
    """Write a part of DFDC: an original, its fake, and a fake of an original in another part."""
    for name in ("aaa", "bbb", "ccc"):
        film(root / "dfdc_train_part_0" / f"{name}.mp4")
    metadata = {
        "aaa.mp4": {"label": "REAL", "split": "train"},
        "bbb.mp4": {"label": "FAKE", "split": "train", "original": "aaa.mp4"},
        "ccc.mp4": {"label": "FAKE", "split": "train", "original": "zzz.mp4"},
    }
    (root / "dfdc_train_part_0" / "metadata.json").write_text(json.dumps(metadata))


def make_manifest(root: Path, film: Film) -> None:
    """Write a manifest of three videos."""
    film(root / "x/1.mp4")
    film(root / "y/1.mp4")
    film(root / "2.mp4")
    lines = "path,label,group,split\nx/1.mp4,real,g,val\ny/1.mp4,fake,g,val\n2.mp4,fake,h,train\n"
    (root / "manifest.csv").write_text(lines)


@pytest.mark.parametrize(
    ("make", "entry", "expected"),
    [
        (make_ffpp, ".", {("original", "035-036", "test"): 2, ("Deepfakes", "035-036", "test"): 1}),
        (
            make_celeb_df,
            ".",
            {("Celeb-real", "id0-id1", "test"): 2, ("Celeb-synthesis", "id0-id1", "test"): 1},
        ),
        (
            make_dfdc,
            ".",
            {("original", "aaa", "train"): 1, ("DFDC", "aaa", "train"): 1, ("DFDC", "zzz", "train"): 1},
        ),
        (
            make_manifest,
            "manifest.csv",
            {("real", "g", "val"): 1, ("fake", "g", "val"): 1, ("fake", "h", "train"): 1},
        ),
    ],
)
def test_every_layout_is_prepared(
    tmp_path: Path,
    film: Film,
    make: Callable[[Path, Film], None],
    entry: str,
    expected: dict[tuple[str, str, str], int],
) -> None:
    """Each layout gives an index with method, group and split."""
    data, out = tmp_path / "data", tmp_path / "out"
    make(data, film)
    spec = ClipSpec(size=48, sample_hz=10, frames=8, min_frames=4, per_video=1)
    found = prepare(data / entry, out, spec=spec, workers=1)
    assert (found.videos, found.clips, found.skipped) == (3, 3, 0)
    rows = rows_of(out)
    assert Counter((row["method"], row["group"], row["split"]) for row in rows) == expected


PROGRAM = """
import sys
from pathlib import Path
from train.data.clip_cutter import ClipSpec
from train.data.prepare import prepare

if __name__ == "__main__":
    spec = ClipSpec(size=48, sample_hz=10, frames=8, min_frames=4, per_video=2)
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), spec=spec, workers=2)
"""


@pytest.fixture(scope="module")
def eight_videos(tmp_path_factory: pytest.TempPathFactory, film: Film) -> tuple[Path, Path]:
    """Return a data set of eight videos, and its preparation by an undisturbed run."""
    folder = tmp_path_factory.mktemp("eight")
    for i in range(8):
        film(folder / "data" / "real" / f"{i}.mp4", brightness=1 - i / 20)
    prepare(folder / "data", folder / "whole", spec=SPEC, workers=2)
    return folder / "data", folder / "whole"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_resumed_with_the_same_result(
    tmp_path: Path, eight_videos: tuple[Path, Path], how: signal.Signals
) -> None:
    """The workers of a killed run end, and the next run writes the bytes of an undisturbed one."""
    data, whole = eight_videos
    out = tmp_path / "killed"
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(data), str(out)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    journal = out / JOURNAL
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = descendants(process.pid)
    process.send_signal(how)
    process.wait(60)
    assert process.returncode != 0
    done = journal.read_bytes().count(b"\n") - 1
    assert 2 <= done < 8
    while alive := [pid for pid in children if running(pid)]:
        assert time.monotonic() < deadline, f"workers outlive their parent: {alive}"
        time.sleep(0.01)
    if how == signal.SIGINT:
        assert len(rows_of(out)) == 2 * done

    found = prepare(data, out, spec=SPEC, workers=2)
    assert found.clips == 16
    assert content(out) == content(whole)


def descendants(pid: int) -> list[int]:
    """Return the ids of all child processes."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return []
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [inner for child in children for inner in descendants(child)]


def running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_video_that_crashes_its_process_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the decoder crashes its process, all other videos are still prepared."""
    # Workers import this function by name, so it has to be in a module that they can find.
    (tmp_path / "crashing.py").write_text(
        "import os, signal\n"
        "from train.data.prepare import Outcome\n"
        "def cut(path):\n"
        "    if path.stem == 'crash':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return Outcome(reason='no face')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    crashing = pytest.importorskip("crashing")
    monkeypatch.setattr(train.data.prepare, "_cut", crashing.cut)
    data = tmp_path / "data"
    (data / "real").mkdir(parents=True)
    for name in ("a", "b", "crash", "c", "d", "e"):
        (data / "real" / f"{name}.mp4").touch()
    found = prepare(data, tmp_path / "out", workers=2)
    assert found.skipped == 6
    skipped = skipped_of(tmp_path / "out")
    assert skipped.pop("real/crash.mp4") == "reading it crashed the process"
    assert set(skipped.values()) == {"no face"}


def test_a_changed_data_set_is_not_resumed(tmp_path: Path) -> None:
    """A changed label, group or split of a prepared video is an error."""
    manifest, out = tmp_path / "list.csv", tmp_path / "out"
    manifest.write_text("path,label,group,split\na.mp4,real,g,train\n")
    assert prepare(manifest, out, workers=1).skipped == 1
    manifest.write_text("path,label,group,split\na.mp4,real,g,test\n")
    with pytest.raises(PrepareError, match=r"a\.mp4 was prepared with another label, group or split"):
        prepare(manifest, out, workers=1)
    with pytest.raises(PrepareError, match="started with another spec"):
        prepare(manifest, out, workers=1, spec=SPEC)


def test_a_data_set_without_a_clip_is_a_mistake(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """For example because the paths of the manifest are relative to another folder."""
    manifest, out = tmp_path / "list.csv", tmp_path / "out"
    manifest.write_text("path,label,group,split\na.mp4,real,g,train\nb.mp4,fake,g,train\n")
    assert unmask.run(["train", "prepare", str(manifest), "--out", str(out), "--workers", "1"]) == 2
    reason = f"none of 2 videos has a clip; see {out / 'skipped.csv'} for the reasons, or give other videos"
    assert capfd.readouterr() == ("", f"unmask: {out}: {reason}\n")
    assert skipped_of(out) == dict.fromkeys(("a.mp4", "b.mp4"), "no such file")


def test_errors_leave_no_files(tmp_path: Path) -> None:
    """A wrong layout or number is reported before anything is written."""
    with pytest.raises(LayoutError):
        prepare(tmp_path, tmp_path / "out")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").touch()
    for wrong in ({"workers": 0}, {"shard_mb": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            prepare(tmp_path, tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(PrepareError, match="cannot be created"):
        prepare(tmp_path, tmp_path / "file" / "out")
