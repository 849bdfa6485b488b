"""What breaks a step, what is told of it, and a small ramp on real cameras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.errors import HelperFailed, NothingMeasured, SettingInvalid
from benchmarks.helpers.cameras import Cameras
from benchmarks.suites.throughput.benchmark import Step, limit, run_throughput
from runtime.errors import RateTooHigh
from runtime.model.bundle import DEFAULT_BUNDLE
from streams.input.events import Connected, Event
from streams.input.reader import open_reader


def step(**changes: Any) -> Step:
    values: dict[str, Any] = {
        "streams": 4,
        "latency_ms": [40.0] * 99 + [60.0],
        "verdicts_hz": 8.0,
        "analysed_hz": 8.0,
        "due_hz": 8.0,
        "dropped": 0,
        "lost": 0,
        "own_cores": 1.0,
        "machine_cores": 1.1,
        "memory_mib": 300.0,
    }
    return Step(**{**values, **changes})


def test_a_step_that_holds() -> None:
    """No drop, all samples, and 99 of 100 verdicts in time: one late one is within the bound."""
    assert step().broken(bound_ms=59.0) == []
    # A file at 8 pictures a second may be off its grid by one.
    assert step(analysed_hz=7.7).broken(bound_ms=59.0) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dropped": 1}, "1 due samples got no verdict"),
        ({"lost": 2}, "2 of 4 streams"),
        ({"analysed_hz": 7.5}, "7.5 of 8 samples"),
        ({"latency_ms": [40.0] * 9 + [900.0]}, "over the bound of 59 ms"),
        ({"latency_ms": []}, "no face"),
    ],
)
def test_a_step_that_breaks(changes: dict[str, Any], words: str) -> None:
    """Each reason is told."""
    (reason,) = step(**changes).broken(bound_ms=59.0)
    assert words in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"own_cores": 1.9}, "all 2 cores busy (decoding 0.50)"),
        ({"own_cores": 1.0, "machine_cores": 1.95}, "other programs took 0.95 of 2 cores"),
        ({"backbone_busy": 0.97}, "the backbone, which ran 97% of the time"),
        ({}, "not the CPU: 1.00 of 2 cores"),
        ({"machine_cores": None}, "not the CPU"),
    ],
)
def test_what_limits(changes: dict[str, Any], words: str) -> None:
    """The machine, its other programs, one thread that cannot be spread, or none of these."""
    assert words in limit(step(cores_by={"decoding": 0.5}, **changes), cores=2)


def test_a_ramp_on_real_cameras(face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends at what was allowed, or below; the record tells every step of it."""
    out = tmp_path / "throughput.json"
    code = run_throughput(
        str(face_video),
        rate_hz=4.0,
        heights=[180],
        seconds=2.0,
        warmup_s=1.0,
        bound_ms=60_000.0,
        most=2,
        repeats=1,
        model=DEFAULT_BUNDLE,
        json_out=out,
    )
    assert code == 0
    record = json.loads(out.read_text())
    ((name, found),) = record["resolutions"].items()
    assert name == "320x180 at 25"
    assert found["steps"][0]["streams"] == 1
    assert 0 <= found["sustained"][0] <= 2
    for each in found["steps"]:
        holds = each["streams"] <= found["sustained"][0]
        assert holds == (each["broken"] == [])
        assert set(each["cores_by"]) >= {"decoding", "finding faces and judging", "backbone"}
    assert record["figures"][f"{name} streams"]["repeats"]["value"] == found["sustained"]
    assert f"{name}: limited by" in capsys.readouterr().out


def test_cameras_are_live(face_video: Path) -> None:
    """They come at the file's rate and the size that was asked for, and go on after the file's end."""
    with Cameras(face_video, height=90) as cameras:
        assert (cameras.footage.width, cameras.footage.height, cameras.footage.fps) == (160, 90, 25.0)
        source, events = cameras.source(3), list[Event]()
        assert source.live
        assert source.name == "camera-4"
        with open_reader(source, sample_hz=25.0, on_event=events.append, retry=False) as reader:
            frames = [frame for _ in range(115) if (frame := reader.next(timeout_s=5.0)) is not None]
    # The file has four seconds.
    assert frames[-1].pts_s - frames[0].pts_s > 4.0
    assert all(frame.captured is not None for frame in frames)
    assert any(isinstance(event, Connected) for event in events)


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    """A file that is no video is told, not waited for."""
    path = tmp_path / "no.mp4"
    path.write_text("not a video")
    with pytest.raises(HelperFailed, match=r"no\.mp4"), Cameras(path):
        pass


def test_a_video_without_a_face(clip: Path) -> None:
    """There is nothing to sustain."""
    with pytest.raises(NothingMeasured, match="no face"):
        run_throughput(str(clip), heights=[90], seconds=1.0, warmup_s=0.1, most=1, model=DEFAULT_BUNDLE)


def test_impossible_settings(face_video: Path) -> None:
    """They are told before anything starts."""
    with pytest.raises(RateTooHigh):
        run_throughput(str(face_video), rate_hz=1000.0, model=DEFAULT_BUNDLE)
    with pytest.raises(SettingInvalid, match="--heights 720"):
        run_throughput("demo", heights=[720], model=DEFAULT_BUNDLE)
