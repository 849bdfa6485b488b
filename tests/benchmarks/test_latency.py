"""The latency benchmark on a real video: what it counts, and that its record says what it was made on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.latency import NothingMeasured, RecordNotWritten, Samples, percentiles, run_latency
from runtime.bundle import DEFAULT_BUNDLE


@pytest.fixture(scope="module")
def model() -> Path:
    return DEFAULT_BUNDLE


def test_percentiles() -> None:
    """They are those of numpy, linear between the two nearest values."""
    assert percentiles(range(101)) == {"mean": 50.0, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    assert percentiles([1.0, 2.0])["p90"] == 1.9


def test_the_warm_up_is_left_out() -> None:
    """The first frames count as scored, and are in no figure."""
    samples = Samples(warmup=2)
    for spent_ms in (100.0, 100.0, 1.0, 3.0):
        samples.add({"total": spent_ms}, faces=1)
    assert samples.scored == 4
    assert samples.summary()["total"]["mean"] == 2.0


def test_the_record(
    face_video: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds every stage's figures and what they were made on; a short file is gone through again."""
    out = tmp_path / "latency.json"
    assert run_latency(str(face_video), samples=40, warmup=5, model=model, json_out=out) == 0
    record = json.loads(out.read_text())
    assert (record["n"], record["warmup"], record["faces"]) == (40, 5, 1.0)
    assert list(record["stages_ms"]) == ["decode", "detect", "crop", "backbone", "head", "total"]
    for figures in record["stages_ms"].values():
        assert 0 <= figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]
    assert record["stages_ms"]["total"]["p50"] > record["stages_ms"]["backbone"]["p50"]
    assert record["machine"]["cores"] >= 1
    assert record["machine"]["libraries"]["onnxruntime"] in record["engine"]
    printed = capsys.readouterr().out
    assert record["machine"]["cpu"] in printed
    assert "p99" in printed


def test_a_video_without_a_face_is_a_mistake(clip: Path, model: Path) -> None:
    """There is nothing to measure then, and the run ends instead of going round for ever."""
    with pytest.raises(NothingMeasured, match="no face"):
        run_latency(str(clip), samples=5, warmup=0, model=model)


def test_a_record_that_cannot_be_written(face_video: Path, model: Path, tmp_path: Path) -> None:
    """That is found out before anything is measured, and the error names the path."""
    out = tmp_path / "nowhere" / "latency.json"
    with pytest.raises(RecordNotWritten, match=r"latency\.json: cannot be written"):
        run_latency(str(face_video), samples=1, warmup=0, model=model, json_out=out)
