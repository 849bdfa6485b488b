"""The stages of a frame add up to its total time."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from benchmarks.harness.stage_timer import StageTimer, TimedDetector, stage_times
from runtime.messages import Latency
from runtime.pipeline.stream_analysis import FaceVerdict
from streams.input.frame import Frame


def frame(decode_ms: float) -> Frame:
    image = av.VideoFrame(64, 64, "yuv420p")
    return Frame(
        image=image,
        pts=0,
        time_base=Fraction(1, 25),
        captured=None,
        decode_ms=decode_ms,
        connection=1,
        segment=1,
    )


def verdict(**latency: float) -> FaceVerdict:
    return cast(FaceVerdict, SimpleNamespace(latency=Latency(**cast(Any, latency))))


def test_the_stages_add_up() -> None:
    """Times of the runtime are divided by the times measured inside them."""
    spent = verdict(decode=2.0, detect=12.0, crop=1.0, backbone=30.0, head=3.0, total=0.0)
    inner = {"network": 7.0, "detector": 9.0, "backbone": 29.5}
    stages = stage_times(frame(2.0), [spent], inner, analysis_ms=47.0, send_ms=0.5)
    assert stages == {
        "decode": 2.0,
        "convert": 2.0,
        "detect": 7.0,
        "track": 3.0,
        "crop": 1.0,
        "queue": 0.5,
        "backbone": 29.5,
        "head": 3.0,
        "verdict": 1.0,
        "send": 0.5,
        "total": 49.5,
    }
    assert stages["total"] == 2.0 + 47.0 + 0.5


def test_a_frame_without_detection() -> None:
    """Tracked faces need no network, and no stage is negative."""
    spent = verdict(decode=1.0, detect=2.0, crop=1.0, backbone=30.0, head=3.0, total=0.0)
    stages = stage_times(frame(1.0), [spent], {"backbone": 31.0}, analysis_ms=35.9, send_ms=0.0)
    assert (stages["convert"], stages["detect"], stages["track"]) == (0.0, 0.0, 2.0)
    assert min(stages.values()) == 0.0


def test_the_network_is_inside_the_detector() -> None:
    """The time of the detector includes that of its network; `take` starts from zero."""
    timer = StageTimer()

    def infer(image: np.ndarray) -> list[np.ndarray]:
        rows, columns = image.shape[2] // 4, image.shape[3] // 4
        return [np.zeros((1, count, rows, columns), np.float32) for count in (1, 2, 2, 10)]

    assert TimedDetector(infer, timer).detect(av.VideoFrame(64, 64, "yuv420p"), 64) == []
    spent = timer.take()
    assert 0 < spent["network"] <= spent["detector"]
    assert timer.take() == {}


def test_a_call_that_fails_counts_too() -> None:
    """The time of a failed call counts, and its error is raised."""
    timer = StageTimer()

    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        timer.timed("work", fail)()
    assert "work" in timer.take()
