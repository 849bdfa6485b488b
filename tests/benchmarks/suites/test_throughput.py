"""When a step fails, its bottleneck, and a search on real cameras."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.errors import HelperFailed, NothingMeasured, SettingInvalid
from benchmarks.helpers.cameras import Cameras
from benchmarks.suites.throughput.benchmark import ThroughputConfig, run_throughput
from benchmarks.suites.throughput.load_step import LoadStep, bottleneck
from runtime.errors import RateTooHigh
from runtime.model.bundle import DEFAULT_BUNDLE
from streams.errors import SourceNotVideo
from streams.input.events import Connected, Event
from streams.input.reader import open_reader


def step(**changes: Any) -> LoadStep:
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
    return LoadStep(**{**values, **changes})


def test_a_step_that_is_sustained() -> None:
    """No drop, all samples analysed, and 99 of 100 verdicts in time."""
    assert step().failures(bound_ms=59.0) == []
    # A file at 8 frames a second may be off by one frame.
    assert step(analysed_hz=7.7).failures(bound_ms=59.0) == []


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
def test_a_step_that_fails(changes: dict[str, Any], words: str) -> None:
    """Each failure has its reason."""
    (reason,) = step(**changes).failures(bound_ms=59.0)
    assert words in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"own_cores": 1.9}, "all 2 cores busy (decoding 0.50)"),
        ({"own_cores": 1.0, "machine_cores": 1.95}, "other programs took 0.95 of 2 cores"),
        ({"backbone_busy": 0.97}, "the backbone, which ran 97% of the time"),
        ({}, "for the interpreter, in which one thread runs at a time: 1.00 of 2 cores"),
        ({"machine_cores": None}, "for the interpreter"),
    ],
)
def test_the_bottleneck(changes: dict[str, Any], words: str) -> None:
    """The bottleneck is the CPU, other programs, the backbone's thread, or none of these."""
    assert words in bottleneck(step(cores_by={"decoding": 0.5}, **changes), cores=2)


def test_a_search_on_real_cameras(
    face_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search ends at the limit or below, and the record has every step."""
    out = tmp_path / "throughput.json"
    config = ThroughputConfig(
        source=str(face_video),
        rate_hz=4.0,
        heights=[180],
        seconds=2.0,
        warmup_s=1.0,
        bound_ms=60_000.0,
        max_streams=2,
        repeats=1,
        model=DEFAULT_BUNDLE,
        json_out=out,
    )
    assert run_throughput(config) == 0
    record = json.loads(out.read_text())
    ((name, found),) = record["resolutions"].items()
    assert name == "320x180 at 25"
    assert found["steps"][0]["streams"] == 1
    assert 0 <= found["sustained"][0] <= 2
    for each in found["steps"]:
        sustained = each["streams"] <= found["sustained"][0]
        assert sustained == (each["failures"] == [])
        assert set(each["cores_by"]) >= {"decoding", "face detection and scoring", "backbone"}
    assert record["figures"][f"{name} streams"]["repeats"]["value"] == found["sustained"]
    assert f"{name}: limited by" in capsys.readouterr().out


def test_cameras_are_live(face_video: Path) -> None:
    """Cameras send at the rate of the file and the given size, and continue after its end."""
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


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    """A file that is no video is an error at once."""
    path = tmp_path / "no.mp4"
    path.write_text("not a video")
    with pytest.raises(HelperFailed, match=r"no\.mp4.*; give another video"), Cameras(path):
        pass
    with pytest.raises(SourceNotVideo, match=r"no\.mp4"):
        run_throughput(ThroughputConfig(source=str(path), model=DEFAULT_BUNDLE))


def test_a_video_without_a_face(clip: Path) -> None:
    """Without a face there is nothing to measure."""
    with pytest.raises(NothingMeasured, match="no face"):
        run_throughput(
            ThroughputConfig(
                source=str(clip), heights=[90], seconds=1.0, warmup_s=0.1, max_streams=1, model=DEFAULT_BUNDLE
            )
        )


def test_invalid_settings_are_refused_before_the_first_stream(face_video: Path) -> None:
    """The errors are raised before any stream starts."""
    with pytest.raises(RateTooHigh):
        run_throughput(ThroughputConfig(source=str(face_video), rate_hz=1000.0, model=DEFAULT_BUNDLE))
    with pytest.raises(SettingInvalid, match="--heights 720"):
        run_throughput(ThroughputConfig(source="demo", heights=[720], model=DEFAULT_BUNDLE))
