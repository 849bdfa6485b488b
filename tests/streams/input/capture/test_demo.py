"""Tests of the demo as a live source, with a clock that the test advances."""

from __future__ import annotations

import itertools
import threading

import pytest

from streams.input.capture.demo import DemoCapture


class Clock:
    """Clock whose every reading costs `read_s` seconds."""

    def __init__(self, read_s: float) -> None:
        self.now_s = 0.0
        self.read_s = read_s

    def __call__(self) -> float:
        self.now_s += self.read_s
        return self.now_s


class Stop(threading.Event):
    """Stop event whose wait advances the clock instead of sleeping."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Advance the clock by the timeout."""
        self._clock.now_s += timeout or 0.0
        return self.is_set()


def captured(read_s: float, count: int) -> list[tuple[float, float, float]]:
    """Return media time, capture time and arrival time of frames that take `read_s` seconds to draw."""
    clock = Clock(read_s)
    stop = Stop(clock)
    times = []
    for frame in DemoCapture(stop=stop, clock=clock).frames():
        assert frame.captured_s is not None
        times.append((float(frame.pts * frame.time_base), frame.captured_s, clock.now_s))
        if len(times) == count:
            stop.set()
    return times


def test_frames_are_captured_in_real_time() -> None:
    """Capture times advance like the media time, and a frame is yielded when it was captured."""
    times = captured(read_s=0.01, count=10)
    for (pts_a, captured_a, _), (pts_b, captured_b, _) in itertools.pairwise(times):
        assert captured_b - captured_a == pytest.approx(pts_b - pts_a)
    assert all(arrival_s == pytest.approx(captured_s) for _, captured_s, arrival_s in times)


def test_a_slow_machine_lowers_the_frame_rate_not_the_latency() -> None:
    """Frames that take longer to draw than their interval are captured later, without growing latency."""
    times = captured(read_s=0.1, count=10)
    assert times[-1][1] - times[0][1] > 1.5 * (times[-1][0] - times[0][0])
    assert all(arrival_s == pytest.approx(captured_s) for _, captured_s, arrival_s in times)
