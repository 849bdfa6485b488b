"""Tests of making face swaps of small videos: content, resuming, bad input, the command."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.support.forged_videos import decoded, rows_of
from train.commands import app
from train.data.layouts import LayoutError, find_videos
from train.face_swap.config import GeneratorDesign, SwapConfig
from train.face_swap.forged_set import ForgeryError
from train.face_swap.run import make_swaps

Film = Callable[..., Path]
CONFIG = SwapConfig(
    designs=(GeneratorDesign(size=32, upsampler="transposed", bottleneck=8, width=8),),
    steps=3,
    batch=4,
    min_faces=8,
    seconds=1.5,
    swap_share=1.0,
)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, film: Film) -> Path:
    """Write three real videos with a face, one without, one broken, one fake, and one of another split."""
    folder = tmp_path_factory.mktemp("reals")
    lines = ["path,label,group,split,set"]
    for number, (name, group, label, split) in enumerate(
        (
            ("a", "one", "real", "train"),
            ("b", "two", "real", "train"),
            ("c", "two", "real", "train"),
            ("wall", "three", "real", "train"),
            ("text", "four", "real", "train"),
            ("forged", "one", "fake", "train"),
            ("d", "five", "real", "val"),
            ("e", "six", "real", "val"),
        )
    ):
        film(folder / f"{name}.mp4", face=name != "wall", brightness=1 - 0.1 * number, frames=30)
        lines.append(f"{name}.mp4,{label},{group},{split},test")
    (folder / "text.mp4").write_text("no video")
    path = folder / "videos.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Path:
    """Return the folder of a finished run."""
    out = tmp_path_factory.mktemp("swaps") / "out"
    found = make_swaps([manifest], out, CONFIG, console=QUIET)
    assert (found.forged, found.skipped) == (3, 2)
    return out


def test_pairs_of_the_same_person(made: Path) -> None:
    """Each forged video has an original of the same length, group and target, and the face of another."""
    rows = rows_of(made / "videos.csv")
    for real, fake in zip(rows[::2], rows[1::2], strict=True):
        assert (real["label"], fake["label"]) == ("real", "fake")
        assert real["group"] == fake["group"] != fake["source"]
        assert real["target"] == fake["target"]
        assert fake["method"] == "swap-transposed-32"
        first, second = decoded(made / real["path"]), decoded(made / fake["path"])
        assert first.shape == second.shape == (15, 192, 256, 3)
        difference = np.abs(first - second).mean(axis=(0, 3))
        # The face is in the left and middle of the frame; its right part stays as it was.
        assert difference[60:110, 70:120].mean() > 4
        assert difference[:, 230:].mean() < 1
    assert {row["group"] for row in rows} == {"one", "two"}
    assert {row["split"] for row in rows} == {"train"}


def test_prepare_reads_the_manifest(made: Path) -> None:
    """The layouts of `unmask train prepare` read labels, groups and targets."""
    videos = find_videos(made / "videos.csv", split="official").videos
    assert sorted(video.fake for video in videos) == [False] * 3 + [True] * 3
    assert {video.data_set for video in videos} == {"swaps"}
    assert all(video.path.is_file() for video in videos)


def test_videos_without_a_usable_face_are_listed(made: Path) -> None:
    """A video without a face and a broken one are skipped, with the reason."""
    reasons = {Path(row["path"]).name: row["reason"] for row in rows_of(made / "skipped.csv")}
    assert reasons["wall.mp4"] == "a face in 0 of 15 frames only"
    assert "Invalid data" in reasons["text.mp4"]


def test_an_interrupted_run_is_resumed(made: Path, manifest: Path) -> None:
    """Complete generators and videos are kept; a missing one is made again with the same bytes."""
    rows = rows_of(made / "videos.csv")
    lost = made / rows[1]["path"]
    content = lost.read_bytes()
    kept = made / rows[2]["path"]
    written = kept.stat().st_mtime_ns
    lost.unlink()
    (made / "videos.csv").unlink()
    next((made / "generators").glob("*.json")).unlink()
    make_swaps([manifest], made, CONFIG, console=QUIET)
    assert rows_of(made / "videos.csv") == rows
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == written


def test_each_split_has_its_own_generator(tmp_path: Path, manifest: Path) -> None:
    """With all splits, the people of one never lend their face to another."""
    screen = io.StringIO()
    make_swaps([manifest], tmp_path / "out", CONFIG, split="all", console=Console(file=screen))
    fakes = [row for row in rows_of(tmp_path / "out" / "videos.csv") if row["label"] == "fake"]
    people = {"train": {"one", "two"}, "val": {"five", "six"}}
    assert {row["split"] for row in fakes} == set(people)
    for row in fakes:
        assert {row["group"], row["source"]} == people[row["split"]]
    assert "step 3, loss" in screen.getvalue()


def test_mistakes(tmp_path: Path, made: Path, manifest: Path) -> None:
    """Other settings, too few people, a missing manifest and a useless folder are one line each."""
    with pytest.raises(ForgeryError, match="begun with other settings or videos; delete it"):
        make_swaps([manifest], made, replace(CONFIG, seed=1), console=QUIET)
    with pytest.raises(ForgeryError, match="no two real people in split test; give more"):
        make_swaps([manifest], tmp_path / "out", CONFIG, split="test", console=QUIET)
    with pytest.raises(LayoutError, match="no such file"):
        make_swaps([tmp_path / "none.csv"], tmp_path / "out", CONFIG, console=QUIET)
    (tmp_path / "file").touch()
    with pytest.raises(ForgeryError, match="name a folder that can be written"):
        make_swaps([manifest], tmp_path / "file", CONFIG, console=QUIET)
    other = tmp_path / "other.csv"
    other.write_text(f"path,label,group,split\n{manifest.parent / 'a.mp4'},real,one,val\n")
    with pytest.raises(ForgeryError, match="split leaks; group 'one' is in train and in val"):
        make_swaps([manifest, other], tmp_path / "out", CONFIG, console=QUIET)
    walls = tmp_path / "walls.csv"
    for name in ("a", "b", "c"):
        shutil.copy(manifest.parent / "wall.mp4", tmp_path / f"{name}.mp4")
    walls.write_text("path,label,group,split\na.mp4,real,a,train\nb.mp4,real,b,train\nc.mp4,real,c,val\n")
    with pytest.raises(ForgeryError, match="no video has a usable face"):
        make_swaps([walls], tmp_path / "walls", CONFIG, console=QUIET)


def test_the_command(tmp_path: Path, manifest: Path) -> None:
    """The command prints where the manifest is and what it contains."""
    out = tmp_path / "out"
    options = ["--generators", "1", "--steps", "1", "--seconds", "3", "--threads", "1"]
    outcome = CliRunner().invoke(app, ["swap", str(manifest), "--out", str(out), *options])
    assert outcome.exception is None, outcome.output
    assert f"{out / 'videos.csv'}: 3 forged videos and their originals, 2 skipped" in outcome.stdout
