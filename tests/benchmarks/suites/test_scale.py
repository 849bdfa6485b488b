"""Curves from given measurements, their plot, and points on real cameras."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.harness.errors import SettingInvalid
from benchmarks.helpers.cameras import Cameras
from benchmarks.suites.scale import benchmark
from benchmarks.suites.scale.benchmark import ScaleConfig, run_scale
from benchmarks.suites.scale.load_curve import CurvePoint, LoadCurve
from benchmarks.suites.scale.plot import write_plot
from benchmarks.suites.throughput.load_step import LoadStep
from runtime.errors import ExtraMissing
from runtime.model.bundle import DEFAULT_BUNDLE
from streams.errors import SourceNotVideo
from streams.input.reader import open_reader


def point(cameras: int, faces: int = 1, *, latency_ms: float = 40.0) -> CurvePoint:
    """Return a point with the given latency of all verdicts."""
    step = LoadStep(
        streams=cameras,
        latency_ms=[latency_ms] * 8,
        verdicts_hz=8.0,
        analysed_hz=8.0,
        due_hz=8.0,
        dropped=0,
        lost=0,
        own_cores=0.3 * cameras,
        machine_cores=0.4 * cameras,
        memory_mib=200.0 + 20 * cameras,
        cores_by={"decoding": 0.1},
        faces=faces,
    )
    return CurvePoint(cameras=cameras, faces=faces, step=step)


CURVES = (
    LoadCurve(
        name="720p",
        by="cameras",
        points=[point(1), point(4, latency_ms=300.0), point(8, latency_ms=900.0)],
        bound_ms=250,
    ),
    LoadCurve(name="720p", by="faces", points=[point(1), point(1, 4)], bound_ms=250),
)


def test_the_first_failure_is_named() -> None:
    """The first point over the limit is named with its bottleneck; without one all are sustained."""
    failed, sustained = CURVES
    assert failed.first_failure().startswith(
        "720p, 4 x 1 face: p99 was 300 ms, over the bound of 250 ms; limited by "
    )
    assert sustained.first_failure() == "720p, 1 x 4 faces: sustained, as all before"


def test_figures_of_a_point() -> None:
    """CPU time is that of one camera; every point has its figures."""
    figures = CURVES[0].figures()
    assert figures["720p, 4 x 1 face: CPU a camera"].value == pytest.approx(0.3)
    assert figures["720p, 8 x 1 face: capture to message"].summary["p99"] == 900.0
    assert CURVES[0].row(point(4))[-2:] == ("280", "yes")


def test_plot_is_reproducible(tmp_path: Path) -> None:
    """The plot is an SVG of six panels with readable text; equal figures give the same bytes."""
    for name in ("first.svg", "second.svg"):
        write_plot(CURVES, tmp_path / name, machine="2 cores")
    text = (tmp_path / "first.svg").read_text()
    assert text == (tmp_path / "second.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert text.count("axes_") == 6
    for words in ("CPU a camera (cores)", "faces of one camera", "2 cores; hollow: not sustained"):
        assert words in text


def test_tiles_show_copies_of_the_video(face_video: Path) -> None:
    """Three copies lie in the first three of two by two tiles; the last stays black."""
    with Cameras(face_video, height=180, tiles=3) as cameras:
        assert (cameras.footage.width, cameras.footage.height) == (320, 180)
        with open_reader(cameras.source(0), sample_hz=8.0, on_event=lambda event: None) as reader:
            frame = next(iter(lambda: reader.next(timeout_s=5.0), None))
    grey = frame.image.to_ndarray(format="gray").astype(np.float64)
    tiles = [grey[:90, :160], grey[:90, 160:], grey[90:, :160], grey[90:, 160:]]
    assert np.abs(tiles[0] - tiles[1]).mean() < 4
    assert np.abs(tiles[0] - tiles[2]).mean() < 4
    assert tiles[0].std() > 20
    assert tiles[3].max() < 40


def test_points_on_real_cameras(
    face_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each point has its line and its values in the record, and the curves are drawn."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(benchmark, "in_process", call)
    out, svg = tmp_path / "scale.json", tmp_path / "scale.svg"
    config = ScaleConfig(
        video=str(face_video),
        cameras=[1],
        heights=[180],
        faces=[2],
        seconds=1.0,
        warmup_s=0.0,
        bound_ms=60_000.0,
        svg=svg,
        model=DEFAULT_BUNDLE,
        json_out=out,
    )
    monkeypatch.setattr(benchmark, "FACES_HEIGHT", 360)
    assert run_scale(config) == 0
    record = json.loads(out.read_text())
    cameras, faces = record["curves"].values()
    assert (cameras["by"], faces["by"]) == ("cameras", "faces")
    assert [each["faces_shown"] for each in faces["points"]] == [2]
    assert record["figures"]["320x180 at 25, 1 x 1 face: CPU a camera"]["value"] > 0
    assert "640x360 at 25, 1 x 2 faces" in capsys.readouterr().out
    assert svg.read_text().endswith("</svg>\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video": "demo"}, "VIDEO demo"),
        ({"cameras": [0]}, "--cameras 0"),
        ({"heights": []}, "--heights"),
        ({"faces": [2, 0]}, "--faces 2,0"),
        ({"svg": Path("/no/such/folder/scale.svg")}, "--svg"),
    ],
)
def test_invalid_settings_are_refused_before_the_first_camera(
    face_video: Path, changes: dict[str, Any], words: str
) -> None:
    """Each impossible option is an error."""
    with pytest.raises(SettingInvalid, match=words):
        run_scale(ScaleConfig(**{"video": str(face_video), "model": DEFAULT_BUNDLE, **changes}))


def test_plot_without_matplotlib_is_refused_first(face_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that has it is named before anything is measured."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExtraMissing, match=r"matplotlib.*unmask\[bench\]"):
        run_scale(ScaleConfig(video=str(face_video), svg=Path("scale.svg"), model=DEFAULT_BUNDLE))


def test_a_file_that_is_no_video_is_refused_before_the_first_camera(tmp_path: Path) -> None:
    """The error names the file, not the number of cameras."""
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(SourceNotVideo, match=r"text\.mp4"):
        run_scale(ScaleConfig(video=str(path), model=DEFAULT_BUNDLE))
