"""The latency benchmark on real streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.errors import NothingMeasured, RecordNotWritten
from benchmarks.suites.latency import LatencyConfig, StageLatencies, run_latency
from runtime.model.bundle import DEFAULT_BUNDLE

STAGES = [
    "decode",
    "convert",
    "detect",
    "track",
    "crop",
    "queue",
    "backbone",
    "head",
    "verdict",
    "send",
    "total",
]


@pytest.fixture(scope="module")
def model() -> Path:
    return DEFAULT_BUNDLE


def test_the_warm_up_is_left_out() -> None:
    """Frames of the warm-up count as scored but are excluded from the figures."""
    samples = StageLatencies(warmup=2)
    for spent_ms in (100.0, 100.0, 1.0, 3.0):
        samples.add({"total": spent_ms}, faces=1)
    assert samples.scored == 4
    figure = samples.figures(repeats=2)["total"]
    assert figure.summary["mean"] == 2.0
    assert figure.repeats["p50"] == (1.0, 3.0)


def test_record_has_all_figures(
    face_video: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record has the figures of every stage; a short file is repeated."""
    out = tmp_path / "latency.json"
    assert (
        run_latency(LatencyConfig(source=str(face_video), samples=40, warmup=5, model=model, json_out=out))
        == 0
    )
    record = json.loads(out.read_text())
    assert (record["n"], record["faces"], record["settings"]["warmup"]) == (40, 1.0, 5)
    assert list(record["figures"]) == STAGES
    for figure in record["figures"].values():
        assert 0 <= figure["p50"] <= figure["p90"] <= figure["p99"] <= figure["max"]
        assert figure["n"] == 40
        assert len(figure["repeats"]["p50"]) == 3
    assert record["figures"]["total"]["p50"] > record["figures"]["backbone"]["p50"] > 0
    # Faces are detected in some frames and followed in the rest.
    assert record["figures"]["detect"]["p50"] == 0 < record["figures"]["detect"]["max"]
    library, version, *_ = record["engine"].split()
    assert record["machine"]["libraries"][library] == version
    assert "no time of capture" in capsys.readouterr().out


def test_a_camera_has_the_latency_to_the_subscriber(
    face_video: Path, model: Path, tmp_path: Path, rtsp_server: Callable[..., Any]
) -> None:
    """With a real camera, server and client in another process, the time to the subscriber is the longest."""
    out = tmp_path / "latency.json"
    assert (
        run_latency(
            LatencyConfig(
                source=rtsp_server(face_video).url(), samples=12, warmup=2, model=model, json_out=out
            )
        )
        == 0
    )
    figures = json.loads(out.read_text())["figures"]
    assert list(figures) == [*STAGES, "capture", "subscriber"]
    assert figures["subscriber"]["n"] == 12
    assert figures["subscriber"]["mean"] > figures["capture"]["mean"] > 0


def test_a_video_without_a_face_is_a_mistake(clip: Path, model: Path) -> None:
    """Without a face the run ends instead of repeating the file forever."""
    with pytest.raises(NothingMeasured, match="no face"):
        run_latency(LatencyConfig(source=str(clip), samples=5, warmup=0, model=model))


def test_a_record_that_cannot_be_written(face_video: Path, model: Path, tmp_path: Path) -> None:
    """The error is raised before the measurement."""
    out = tmp_path / "nowhere" / "latency.json"
    with pytest.raises(RecordNotWritten, match=r"latency\.json: cannot be written"):
        run_latency(LatencyConfig(source=str(face_video), samples=1, warmup=0, model=model, json_out=out))
