"""Tells the stages of one stream apart from outside: what is passed into the analysis is timed on its way in.

The program runs as it is; a stage costs two more looks at the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.pipeline.stream_analysis import FaceVerdict
from streams.faces.detector import Detection, Detector, Infer
from streams.input.frame import Frame


class StageTimer:
    """Adds up the milliseconds of each stage, from any thread that has it to itself."""

    def __init__(self) -> None:
        self._spent_ms: dict[str, float] = {}

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a callable so that its time counts for a stage."""

        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.add(stage, 1e3 * (time.perf_counter() - started))

        return run

    def add(self, stage: str, spent_ms: float) -> None:
        """Count milliseconds for a stage."""
        self._spent_ms[stage] = self._spent_ms.get(stage, 0.0) + spent_ms

    def take(self) -> dict[str, float]:
        """Give what each stage took since the last call, and begin anew."""
        spent, self._spent_ms = self._spent_ms, {}
        return spent


class TimedDetector(Detector):
    """A detector whose network counts for `network`, and all it does for `detector`.

    Args:
        infer: As for `Detector`.
        stopwatch: Where it counts.
    """

    def __init__(self, infer: Infer, stopwatch: StageTimer) -> None:
        super().__init__(stopwatch.timed("network", infer))
        self._timed = stopwatch.timed("detector", super().detect)

    def detect(self, picture: Any, long_side: int) -> list[Detection]:
        found: list[Detection] = self._timed(picture, long_side)
        return found


class TimedBackbone:
    """A backbone whose calls count for `backbone`; what the batcher runs.

    Args:
        features: uint8 RGB `(N, H, W, 3)` -> float32 `(N, D)`.
        stopwatch: Where it counts.
    """

    def __init__(
        self, features: Callable[[NDArray[np.uint8]], NDArray[np.float32]], stopwatch: StageTimer
    ) -> None:
        self._timed = stopwatch.timed("backbone", features)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._timed(crops)
        return features


def split(
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
        verdicts: What was found in it, at least one with a latency.
        inner: What the stopwatch counted meanwhile.
        analysis_ms: The whole analysis, from frame to verdicts.
        send_ms: From verdicts to messages handed to the server.

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
