"""Tests of the benchmark on real files with a small model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from runtime.pipeline.scan_result import ScanResult
from tests.runtime.scan_report.test_timeline import sample
from tests.support.small_bundle import write_small_bundle
from train.errors import ConfigInvalid
from train.footage.benchmark import BenchmarkConfig, benchmark
from train.footage.scanning import RECORDS_FILE
from train.footage.transcoding import choose_transcodings
from train.footage.video_record import FootageRecorder
from train.scoring.bootstrap import BootstrapConfig

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a small bundle."""
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "small")


@pytest.fixture(scope="module")
def manifest(
    face_video: Path,
    clip: Path,
    make_face_video: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Manifest of a real and a fake video with a face, and a real one without."""
    folder = tmp_path_factory.mktemp("footage")
    make_face_video(folder / "other.mp4", seconds=2.0)
    path = folder / "mine.csv"
    path.write_text(
        f"path,label,group,split\n{face_video},real,a,val\nother.mp4,fake,a,val\n{clip},real,b,val\n"
    )
    return path


def test_results_and_continuation(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    """A second run takes the stored scores; what an interrupted write has damaged is measured again."""
    config = BenchmarkConfig(
        models=[bundle, bundle], network_alone=True, bootstrap=BootstrapConfig(replicates=5)
    )
    results = benchmark([manifest], tmp_path, config, console=QUIET)
    stored = (tmp_path / RECORDS_FILE).read_bytes()
    assert len(stored.splitlines()) == 6
    assert json.loads((tmp_path / "benchmark.json").read_text()) == results
    model, alone = results["models"].values()
    states = {video["name"]: video["state"] for video in model["videos"]}
    assert states == {"face.mp4": "scored", "other.mp4": "scored", "clip.mp4": "no_face"}
    assert model["pooled"]["scored"] == 2
    assert [video["luma"] is None for video in model["videos"]].count(True) == 1
    assert "auc_difference" in alone
    page = (tmp_path / "benchmark.html").read_text()
    assert "<script" not in page
    assert "data:image/png;base64," in page
    assert all(name in page for name in results["models"])
    lines = stored.splitlines(keepends=True)
    (tmp_path / RECORDS_FILE).write_bytes(b"".join(lines[:5]) + lines[5][:20] + b"\n")
    again = benchmark([manifest], tmp_path, config, console=QUIET)
    assert again["models"] == results["models"]
    assert len((tmp_path / RECORDS_FILE).read_bytes().splitlines()) == 7


def test_transcoded_videos_are_measured_again(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    """The figures after it stand beside those of the original; the copies are kept for the next run."""
    config = BenchmarkConfig(
        models=[bundle],
        transcodings=choose_transcodings(["half"]),
        cache=tmp_path / "cache",
        bootstrap=BootstrapConfig(replicates=2),
    )
    (model,) = benchmark([manifest], tmp_path / "out", config, console=QUIET)["models"].values()
    assert model["conditions"]["half"]["pooled"]["scored"] == 2
    assert set(model["conditions"]["half"]["data_sets"]) == {"mine"}
    assert len(list((tmp_path / "cache").glob("*-half-*.mkv"))) == 3
    page = (tmp_path / "out" / "benchmark.html").read_text()
    assert "After transcoding" in page
    assert "<td class=n>half</td>" in page


def test_processes_give_the_same_scores(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    """The number of processes does not change a score."""
    scores = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        config = BenchmarkConfig(models=[bundle], jobs=jobs, bootstrap=BootstrapConfig(replicates=1))
        (model,) = benchmark([manifest], out, config, console=QUIET)["models"].values()
        scores.append([video["p_fake"] for video in model["videos"]])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_entries_into_fake_are_counted() -> None:
    """An alarm is a change to `fake`; a face that stays there raises no second one."""
    recorder = FootageRecorder(1.3)
    scores = [0.1, 0.9, 0.9, 0.1, 0.9]
    for index, p_fake in enumerate(scores):
        recorder(*sample(index, {1: p_fake, 2: 0.1}))
    record = recorder.record(ScanResult(file="a.mp4", state="no_face"))
    assert (record.alarms, record.first_alarm_s) == (2, 0.25)
    assert (record.verdicts, record.fake, record.uncertain) == (10, 3, 0)


def test_settings_are_checked() -> None:
    """There must be a model and a process."""
    with pytest.raises(ConfigInvalid, match="at least one model"):
        BenchmarkConfig(models=[])
    with pytest.raises(ConfigInvalid, match="jobs must be at least 1"):
        BenchmarkConfig(jobs=0)
