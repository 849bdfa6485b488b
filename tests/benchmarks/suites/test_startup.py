"""Starts of the real command, with a warm and an empty cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness.errors import NothingMeasured
from benchmarks.suites.startup import STAGES, StartupConfig, run_startup
from runtime.model.bundle import DEFAULT_BUNDLE
from streams.errors import SourceError, SourceNotVideo


def test_stages_follow_each_other(
    face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage has its time with both caches, in their order."""
    out = tmp_path / "startup.json"
    config = StartupConfig(source=str(face_video), repeats=1, model=DEFAULT_BUNDLE, json_out=out)
    assert run_startup(config) == 0
    figures = json.loads(out.read_text())["figures"]
    for cache in ("warm cache", "empty cache"):
        message, live, verdict, cpu = (figures[f"{cache}: {stage}"]["value"] for stage in STAGES)
        assert 0 < message <= live <= verdict
        assert cpu > 0
    assert "a score needs 4 samples" in capsys.readouterr().out


def test_a_source_without_a_face(clip: Path, tmp_path: Path) -> None:
    """A video that ends without a verdict is an error, and so is a source that is none."""
    with pytest.raises(NothingMeasured, match="it ended before a face was scored"):
        run_startup(StartupConfig(source=str(clip), repeats=1, model=DEFAULT_BUNDLE))
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(SourceNotVideo):
        run_startup(StartupConfig(source=str(text), model=DEFAULT_BUNDLE))
    with pytest.raises(SourceError):
        run_startup(StartupConfig(source="rtsp://", model=DEFAULT_BUNDLE))
