"""Tests of making self-blended videos of small videos: content, resuming, bad input, the command."""

from __future__ import annotations

import io
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
from train.errors import ConfigInvalid
from train.face_swap.forged_set import ForgeryError
from train.self_blend.config import SelfBlendConfig
from train.self_blend.run import make_self_blends

Film = Callable[..., Path]
CONFIG = SelfBlendConfig(versions=2, seconds=1.5, min_faces=8, workers=2)
QUIET = Console(quiet=True)
FACE, WALL = np.s_[:, 60:110, 70:120], np.s_[:, :, 230:]
"""Pixels of the face and of the wall beside it, in the frames of a film."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, film: Film) -> Path:
    """Write two real videos with a still face, one without, one broken, one fake, one of another split."""
    folder = tmp_path_factory.mktemp("reals")
    lines = ["path,label,group,split"]
    for name, group, label, split in (
        ("a", "one", "real", "train"),
        ("b", "two", "real", "train"),
        ("wall", "three", "real", "train"),
        ("text", "four", "real", "train"),
        ("forged", "one", "fake", "train"),
        ("d", "five", "real", "val"),
    ):
        film(folder / f"{name}.mp4", face=name != "wall", still=True, frames=60)
        lines.append(f"{name}.mp4,{label},{group},{split}")
    (folder / "text.mp4").write_text("no video")
    path = folder / "videos.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, manifest: Path) -> Path:
    """Return the folder of a finished run."""
    out = tmp_path_factory.mktemp("self-blends") / "out"
    found = make_self_blends([manifest], out, CONFIG, console=QUIET)
    assert (found.manifest, found.forged, found.skipped) == (out / "videos.csv", 4, 2)
    return out


def test_pairs(made: Path, manifest: Path) -> None:
    """A fake differs from its original in the face only, and changes more from frame to frame there."""
    rows = rows_of(made / "videos.csv")
    for real, fake in zip(rows[::2], rows[1::2], strict=True):
        assert (real["label"], fake["label"]) == ("real", "fake")
        assert (real["method"], fake["method"]) == ("", "self-blend")
        assert real["target"] == fake["target"]
        assert real["group"] == fake["group"]
        original, forged = decoded(made / real["path"]), decoded(made / fake["path"])
        assert original.shape == forged.shape == (15, 192, 256, 3)
        difference = np.abs(original - forged)
        assert difference[FACE].mean() > 1
        assert difference[WALL].mean() < 0.15 * difference[FACE].mean()
        scene = decoded(manifest.parent / f"{real['target'][0]}.mp4")[:15]
        loss, forged_loss = (np.abs(video - scene)[WALL].mean() for video in (original, forged))
        # Beside the face both are the scene, up to what the encoder loses.
        assert forged_loss < loss + 0.3
        still, flickering = (np.abs(np.diff(video, axis=0)) for video in (original, forged))
        assert flickering[FACE].mean() > 2 * still[FACE].mean()
        assert flickering[WALL].mean() == pytest.approx(still[WALL].mean(), abs=0.1)
    assert [row["group"] for row in rows] == ["one"] * 4 + ["two"] * 4
    assert {(row["split"], row["set"], row["source"]) for row in rows} == {("train", "self-blends", "")}
    assert len({row["target"] for row in rows}) == 4


def test_prepare_reads_the_manifest(made: Path) -> None:
    """The layouts of `unmask train prepare` read labels, groups and targets."""
    videos = find_videos(made / "videos.csv").videos
    assert sorted(video.fake for video in videos) == [False] * 4 + [True] * 4
    assert {video.group for video in videos} == {"one", "two"}
    assert all(video.path.is_file() for video in videos)


def test_videos_without_a_usable_face_are_listed(made: Path) -> None:
    """A video without a face and a broken one are skipped, with the reason, and leave no file."""
    reasons = {Path(row["path"]).name: row["reason"] for row in rows_of(made / "skipped.csv")}
    assert reasons.keys() == {"wall.mp4", "text.mp4"}
    assert reasons["wall.mp4"] == "a face in 0 of 15 frames only"
    assert "Invalid data" in reasons["text.mp4"]
    listed = {made / row["path"] for row in rows_of(made / "videos.csv")}
    assert set((made / "videos").iterdir()) == listed


def test_an_interrupted_run_is_resumed_with_the_same_bytes(made: Path, manifest: Path) -> None:
    """Complete pairs are kept; what is missing is made again, the same with another number of processes."""
    rows = rows_of(made / "videos.csv")
    kept, lost = made / rows[0]["path"], [made / row["path"] for row in rows[2:]]
    written, contents = kept.stat().st_mtime_ns, [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    (made / "videos.csv").unlink()
    screen = io.StringIO()
    console = Console(file=screen, width=200)
    make_self_blends([manifest], made, replace(CONFIG, workers=1), console=console)
    assert rows_of(made / "videos.csv") == rows
    assert [path.read_bytes() for path in lost] == contents
    assert kept.stat().st_mtime_ns == written
    lines = screen.getvalue().splitlines()
    assert lines[0] == f"2/8 {rows[2]['target']}: written"
    assert lines[-1].endswith("a face in 0 of 15 frames only")


def test_the_command(tmp_path: Path, manifest: Path) -> None:
    """The command prints where the manifest is; `--split` and `--seed` decide."""
    fakes = []
    for seed in ("0", "1"):
        out = tmp_path / seed
        options = ["--split", "val", "--seconds", "2.5", "--workers", "1", "--seed", seed]
        outcome = CliRunner().invoke(app, ["self-blend", str(manifest), "--out", str(out), *options])
        assert outcome.exception is None, outcome.output
        assert f"{out / 'videos.csv'}: 1 forged videos and their originals, 0 skipped" in outcome.stdout
        real, fake = rows_of(out / "videos.csv")
        assert (real["group"], real["split"]) == ("five", "val")
        fakes.append((out / fake["path"]).read_bytes())
    assert fakes[0] != fakes[1]


def test_mistakes(tmp_path: Path, made: Path, manifest: Path) -> None:
    """Other settings, no real video, a missing manifest and a useless folder are one line each."""
    out = tmp_path / "out"
    with pytest.raises(ForgeryError, match="begun with other settings or videos; delete it"):
        make_self_blends([manifest], made, replace(CONFIG, seed=1), console=QUIET)
    with pytest.raises(ForgeryError, match="no real video in split test; give more"):
        make_self_blends([manifest], out, CONFIG, split="test", console=QUIET)
    with pytest.raises(LayoutError, match="no such file"):
        make_self_blends([tmp_path / "none.csv"], out, CONFIG, console=QUIET)
    assert not out.exists()
    (tmp_path / "file").touch()
    with pytest.raises(ForgeryError, match="name a folder that can be written"):
        make_self_blends([manifest], tmp_path / "file", CONFIG, console=QUIET)
    for wrong in ({"versions": 0}, {"seconds": 0.0}, {"workers": 0}, {"seed": -1}):
        with pytest.raises(ConfigInvalid, match=next(iter(wrong))):
            SelfBlendConfig(**wrong)


def test_without_a_usable_face(tmp_path: Path, manifest: Path) -> None:
    """If no video can be used, the list of the reasons is still written."""
    walls = tmp_path / "walls.csv"
    walls.write_text(
        f"path,label,group,split\n{manifest.parent / 'wall.mp4'},real,a,train\nother.mp4,real,b,val\n"
    )
    with pytest.raises(ForgeryError, match=r"no video has a usable face; see skipped\.csv"):
        make_self_blends([walls], tmp_path / "out", replace(CONFIG, versions=1), console=QUIET)
    (row,) = rows_of(tmp_path / "out" / "skipped.csv")
    assert row["reason"] == "a face in 0 of 15 frames only"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_videos_that_cannot_be_written(tmp_path: Path, manifest: Path) -> None:
    """If the system refuses to write a video, the run ends: the others would fail as well."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "videos").symlink_to("/proc")
    with pytest.raises(ForgeryError, match="no such file or directory; name a folder that can be written"):
        make_self_blends([manifest], out, CONFIG, console=QUIET)
