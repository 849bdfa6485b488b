"""Time of each stage of one stream, measured by wrapping the callables that are passed into the pipeline.

The program under test is not changed; each stage costs two more reads of the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from runtime.pipeline.stream_analysis import FaceVerdict
from streams.faces.detector import Detection, Detector, Infer
from streams.faces.reduced_frame import ReducedFrame
from streams.input.frame import Frame


class StageTimer:
    """Sum of the milliseconds of each stage. Not locked: one thread at a time may use it."""

    def __init__(self) -> None:
        self._spent_ms: dict[str, float] = {}

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the callable with its time added to a stage."""

        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.add(stage, 1e3 * (time.perf_counter() - started))

        return run

    def add(self, stage: str, spent_ms: float) -> None:
        """Add milliseconds to a stage."""
        self._spent_ms[stage] = self._spent_ms.get(stage, 0.0) + spent_ms

    def take(self) -> dict[str, float]:
        """Return the milliseconds of each stage since the last call, and start from zero."""
        spent, self._spent_ms = self._spent_ms, {}
        return spent


class TimedDetector(Detector):
    """Detector that adds its network's time to `network`, and its whole time to `detector`.

    Args:
        infer: See `Detector`.
        timer: Timer to add to.
    """

    def __init__(self, infer: Infer, timer: StageTimer) -> None:
        super().__init__(timer.timed("network", infer))
        self._timed = timer.timed("detector", super().detect)

    def detect(self, image: av.VideoFrame | ReducedFrame, long_side: int) -> list[Detection]:
        found: list[Detection] = self._timed(image, long_side)
        return found


class TimedBackbone:
    """Backbone for the batcher that adds its time to `backbone`.

    Args:
        features: uint8 RGB `(N, H, W, 3)` -> float32 `(N, D)`.
        timer: Timer to add to.
    """

    def __init__(
        self, features: Callable[[NDArray[np.uint8]], NDArray[np.float32]], timer: StageTimer
    ) -> None:
        self._timed = timer.timed("backbone", features)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._timed(crops)
        return features


def stage_times(
    frame: Frame,
    verdicts: Sequence[FaceVerdict],
    inner: Mapping[str, float],
    *,
    analysis_ms: float,
    send_ms: float,
) -> dict[str, float]:
    """Divide the time of one frame among its stages.

    Args:
        frame: The frame.
        verdicts: Its verdicts, at least one with timings.
        inner: Result of `StageTimer.take` for this frame.
        analysis_ms: Time from frame to verdicts.
        send_ms: Time from verdicts to messages handed to the server.

    Returns:
        Milliseconds by stage, in the order of the pipeline. None is negative and `total` is their sum.
    """
    spent = next(verdict.latency for verdict in verdicts if verdict.latency is not None)
    network, detector = inner.get("network", 0.0), inner.get("detector", 0.0)
    backbone = min(inner.get("backbone", 0.0), spent.backbone)
    stages = {
        "decode": frame.decode_ms,
        "convert": detector - network,
        "detect": network,
        "track": max(0.0, spent.detect - detector),
        "crop": spent.crop,
        "queue": spent.backbone - backbone,
        "backbone": backbone,
        "head": spent.head,
    }
    measured = spent.detect + spent.crop + spent.backbone + spent.head
    stages["verdict"] = max(0.0, analysis_ms - measured)
    stages["send"] = send_ms
    return {**stages, "total": sum(stages.values())}
