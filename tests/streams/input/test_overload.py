"""Analysis slower than the sample rate, on a simulated clock: the samples it gets, and how many verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import pytest

from streams.input.capture.display_transform import FrameGeometry, Orientation
from streams.input.continuity import MAX_BRIDGED_STEP, MAX_STEP, Continuity, Origin
from streams.input.frame_queue import MAX_WAIT_S, FrameQueue
from streams.input.sampler import MIN_STEP, ThinnedSampler

HZ = 8.0
MIN_SAMPLES = 5  # the bundled model gives no verdict on fewer
SECONDS = 60
GEOMETRY = FrameGeometry(320, 240, Orientation.UPRIGHT, Fraction(1))
ORIGIN = Origin(connection=1, timeline=0, recoveries=0, geometry=GEOMETRY)


@dataclass(frozen=True)
class Analysed:
    """One analysed sample."""

    time_s: float
    began_s: float
    segment: int


class Machine:
    """Source of a steady frame rate, and an analysis that takes a given time for each sample.

    Args:
        fps: Frame rate of the source.
        service_s: Function from the number of a sample to the seconds that its analysis takes.
    """

    def __init__(self, fps: float, service_s: Callable[[int], float]) -> None:
        self.analysed: list[Analysed] = []
        self.sampler = ThinnedSampler(HZ)
        self._now = 0.0
        self.queue: FrameQueue[float] = FrameQueue(drops_late=True, clock=lambda: self._now)
        self._continuity = Continuity(HZ)
        self._service_s = service_s
        self._free_s = 0.0
        for index in range(int(SECONDS * fps)):
            self._advance(index / fps)
            if self.sampler.offer(self._now, behind=self.queue.behind):
                self.queue.put(self._now)

    def _advance(self, until_s: float) -> None:
        while self._free_s < until_s:
            self._now = max(self._now, self._free_s)
            time_s = self.queue.take(0)
            if time_s is None:
                break
            self.analysed.append(Analysed(time_s, self._now, self._continuity.deliver(time_s, ORIGIN)))
            self._free_s = self._now + self._service_s(len(self.analysed))
        self._now = until_s

    @property
    def segments(self) -> list[list[Analysed]]:
        """Return the samples by segment."""
        return [list(group) for _, group in itertools.groupby(self.analysed, key=lambda a: a.segment)]

    @property
    def verdict_hz(self) -> float:
        """Return the verdicts per second: one for each sample of a window that is full enough."""
        return sum(max(0, len(segment) - MIN_SAMPLES + 1) for segment in self.segments) / SECONDS


def even(slowness: float) -> Callable[[int], float]:
    return lambda number: slowness / HZ


def uneven(slowness: float) -> Callable[[int], float]:
    """Return the times of an analysis that detects faces in every third sample."""
    return lambda number: slowness / HZ * (2.0 if number % 3 == 0 else 0.5)


@pytest.mark.parametrize("service", [even, uneven])
@pytest.mark.parametrize("fps", [10, 12, 15, 24, 25, 30000 / 1001, 50, 60])
def test_the_verdict_rate_falls_with_the_speed_of_the_machine(
    fps: float, service: Callable[[float], Callable[[int], float]]
) -> None:
    """It falls steadily, and nowhere from many verdicts to none."""
    rates = [Machine(fps, service(slow)).verdict_hz for slow in (0.8, 1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 5.0)]
    assert rates[0] >= 5.9
    assert all(0.3 <= slower <= faster + 0.05 for faster, slower in itertools.pairwise(rates[:-1]))
    assert all(slower >= 0.3 * faster for faster, slower in itertools.pairwise(rates[:-1]))
    assert rates[-1] == 0


@pytest.mark.parametrize("fps", [10, 15, 24, 25, 30, 60])
@pytest.mark.parametrize("slowness", [1.1, 1.3, 1.5])
def test_samples_are_thinned_evenly_while_that_is_enough(fps: float, slowness: float) -> None:
    """One segment, at the rate of the analysis, at intervals that a window accepts and with little delay."""
    machine = Machine(fps, even(slowness))
    (samples,) = machine.segments
    assert len(samples) / SECONDS == pytest.approx(HZ / slowness, rel=0.02)
    steps = [(b.time_s - a.time_s) * HZ for a, b in itertools.pairwise(samples)]
    assert min(steps) >= MIN_STEP
    assert max(steps) <= 1.7 + 1e-4
    assert max(sample.began_s - sample.time_s for sample in samples) <= 2.5 * slowness / HZ
    assert machine.queue.dropped == 0
    assert not machine.sampler.too_slow


@pytest.mark.parametrize("fps", [5, 8, 9, 12, 25, 30])
@pytest.mark.parametrize("slowness", [1.1, 1.7, 2.0, 3.0, 5.0])
def test_no_window_is_spliced_and_no_sample_is_old(fps: float, slowness: float) -> None:
    """Where thinning is not enough, segments end; none spans what was dropped."""
    machine = Machine(fps, even(slowness))
    for segment in machine.segments:
        steps = [(b.time_s - a.time_s) * HZ for a, b in itertools.pairwise(segment)]
        assert all(step <= MAX_BRIDGED_STEP + 1e-4 for step in steps)
        assert not any(min(pair) > MAX_STEP + 1e-4 for pair in itertools.pairwise(steps))
    assert max(sample.began_s - sample.time_s for sample in machine.analysed) <= MAX_WAIT_S + 1e-6
    assert not machine.sampler.too_slow


@pytest.mark.parametrize("slowness", [0.9, 1.3, 2.0, 4.0])
def test_every_due_sample_is_analysed_or_counted(slowness: float) -> None:
    """Thinned and dropped samples together are those that the analysis did not get."""
    machine = Machine(25, even(slowness))
    lost = machine.queue.dropped + machine.sampler.thinned
    assert len(machine.analysed) + lost == pytest.approx(HZ * SECONDS, abs=8)
    assert lost == 0 or slowness > 1


@pytest.mark.parametrize("fps", [8, 25, 30])
def test_one_slow_sample_breaks_nothing(fps: float) -> None:
    """A pause of half a second is made up for."""
    machine = Machine(fps, lambda number: 0.5 if number % 40 == 0 else 0.05)
    assert len(machine.segments) == 1
    assert machine.queue.dropped == 0
