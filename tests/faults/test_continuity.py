"""Faults of time stamps, frame rates, sizes and data: what a camera or a file does, and what must be seen."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.messages import BroadcastMessage, HeartbeatMessage, StreamHealth, StreamMessage
from runtime.model.calibration import Calibration
from runtime.pipeline.monitor import Monitor
from runtime.pipeline.stream_thread import MonitorTiming
from streams.input.continuity import MAX_BRIDGED_STEP
from streams.input.events import TooSlow
from streams.input.frame import Frame
from streams.input.sampler import Sampler
from streams.input.source import parse_source
from tests.support.faulty_camera import CameraFrame, FaultyCamera, brightness_index, grey, steady
from tests.support.reading import frames_of, reading
from tests.support.videos import frame_index, write_decoding_order, write_tracks, write_video

HZ = 8.0
MIN_SAMPLES = 5  # the bundled model gives no verdict on fewer
TIMEOUT_S = 30.0
CAMERAS_AT_A_TIME = 6


@dataclass(frozen=True)
class Analysed:
    """One analysed frame: what its time stamps say, and when it was really sent."""

    segment: int
    width: int
    sent_s: float
    latency_s: float


@dataclass
class Observer:
    """Analysis that records its frames instead of finding faces, and sink of the monitor's messages."""

    camera: Sequence[CameraFrame]
    analysed: list[Analysed] = field(default_factory=list)
    messages: list[BroadcastMessage] = field(default_factory=list)
    faces: tuple[int, ...] = ()
    crops: dict[int, object] = field(default_factory=dict)
    calibration: Calibration | None = None
    repeated: bool = False
    waiting: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def analyse(self, frame: Frame) -> list[object]:
        """Record a frame, in place of `StreamAnalysis.analyse`."""
        assert frame.captured is not None
        with self.changed:
            index = brightness_index(frame.image)
            latency_s = time.time() - frame.captured
            self.analysed.append(Analysed(frame.segment, frame.width, self.camera[index].at_s, latency_s))
            self.changed.notify_all()
        return []

    def __call__(self, message: BroadcastMessage) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    @property
    def health(self) -> StreamHealth:
        """The newest counters."""
        heartbeats = [m for m in self.messages if isinstance(m, HeartbeatMessage) and m.streams]
        return heartbeats[-1].streams[0] if heartbeats else StreamHealth(stream="cam", state="connecting")

    @property
    def states(self) -> list[str]:
        """The states of the stream, in order."""
        return [m.state for m in self.messages if isinstance(m, StreamMessage)]

    @property
    def reasons(self) -> str:
        """All reasons of the stream's states."""
        return "\n".join(m.reason or "" for m in self.messages if isinstance(m, StreamMessage))

    def longest(self) -> int:
        """Return the number of samples in the longest segment."""
        groups = itertools.groupby(self.analysed, key=lambda frame: frame.segment)
        return max((len(list(group)) for _, group in groups), default=0)

    def windows(self) -> list[list[Analysed]]:
        """Return every run of samples that is long enough for a verdict."""
        runs = [list(group) for _, group in itertools.groupby(self.analysed, key=lambda f: f.segment)]
        return [run[at : at + MIN_SAMPLES] for run in runs for at in range(len(run) - MIN_SAMPLES + 1)]


@dataclass(frozen=True)
class Case:
    """One faulty camera.

    Args:
        fault: What the camera does.
        camera: Its frames.
        seen: What must be seen in the end.
        too_slow: Whether the stream may be `too_slow`.
    """

    fault: str
    camera: Callable[[], list[CameraFrame]]
    seen: Callable[[Observer], bool]
    too_slow: bool = False


def stepping_back(*, back_s: float, every: int, frames: int = 150) -> list[CameraFrame]:
    stamp_s, sent = 0.0, []
    for index, data in enumerate(grey(frames)):
        stamp_s += 0.0 if index == 0 else -back_s if index % every == 0 else 0.04
        sent.append(CameraFrame(index / 25, stamp_s, data))
    return sent


def set_back(by_s: float) -> list[CameraFrame]:
    return steady(grey(125), stamp_s=lambda at_s: 100 + at_s - (by_s if at_s >= 2 else 0))


def spaced(intervals_s: Sequence[float], data: Sequence[bytes] | None = None) -> list[CameraFrame]:
    times_s = list(itertools.accumulate(intervals_s, initial=0.0))
    return [
        CameraFrame(at_s, at_s, one) for at_s, one in zip(times_s, data or grey(len(times_s)), strict=True)
    ]


def damaged() -> list[CameraFrame]:
    data = grey(125)
    return steady([one[:12] + bytes(len(one)) if 40 <= i < 75 else one for i, one in enumerate(data)])


def delayed() -> list[CameraFrame]:
    frames = steady(grey(150))
    return [CameraFrame(3.4 if 2.0 < f.at_s < 3.4 else f.at_s, f.stamp_s, f.data) for f in frames]


def one_segment(observer: Observer) -> bool:
    return observer.longest() >= 24


def named(words: str) -> Callable[[Observer], bool]:
    return lambda observer: words in observer.reasons and observer.longest() >= 12


def two_segments_without_latency(observer: Observer) -> bool:
    after = [frame for frame in observer.analysed if frame.sent_s >= 2.2]
    return (
        len(after) >= 16
        and {frame.segment for frame in observer.analysed} == {1, 2}
        and sorted(frame.latency_s for frame in after)[len(after) // 2] < 0.2
    )


CASES = [
    Case("steps back by 1 ms once a second", lambda: stepping_back(back_s=0.001, every=25), one_segment),
    Case("steps back by 1 ms five times a second", lambda: stepping_back(back_s=0.001, every=5), one_segment),
    Case("steps back by 60 ms twice a second", lambda: stepping_back(back_s=0.06, every=12), one_segment),
    Case("clock set back by 0.3 s", lambda: set_back(0.3), two_segments_without_latency),
    Case("clock set back by 0.5 s", lambda: set_back(0.5), two_segments_without_latency),
    Case("clock set back by 0.9 s", lambda: set_back(0.9), two_segments_without_latency),
    Case("clock set back by an hour", lambda: set_back(3600.0), two_segments_without_latency),
    Case(
        "time stamps do not advance",
        lambda: steady(grey(175), stamp_s=lambda _: 5.0),
        named("do not advance"),
    ),
    Case(
        "clock ten times too fast",
        lambda: steady(grey(175), stamp_s=lambda at_s: 10 * at_s),
        named("10 times real time"),
        too_slow=True,
    ),
    Case(
        "clock ten times too slow",
        lambda: steady(grey(175), stamp_s=lambda at_s: at_s / 10),
        named("0.1 times real time"),
    ),
    Case(
        "30, 3, 30 frames a second",
        lambda: spaced([1 / 30] * 45 + [1 / 3] * 12 + [1 / 30] * 75),
        lambda observer: (
            "too_slow" in observer.states
            and observer.health.dropped_by.refused > 0
            and observer.analysed[-1].sent_s > 7.0
            and observer.analysed[-1].segment > observer.analysed[0].segment
        ),
        too_slow=True,
    ),
    Case("5 frames a second", lambda: steady(grey(32), fps=5), one_segment),
    Case("7 frames, then a hole of 240 ms", lambda: spaced(([0.04] * 6 + [0.24]) * 10), one_segment),
    Case(
        "twice the size at the same aspect ratio",
        lambda: steady(grey(50) + grey(50, width=640, height=480, first=50)),
        lambda observer: {(f.segment, f.width) for f in observer.analysed} == {(1, 320), (2, 640)},
    ),
    Case(
        "damaged data for a second and a half",
        damaged,
        lambda observer: observer.health.dropped_by.corrupt >= 3 and observer.analysed[-1].segment > 1,
    ),
    Case(
        "everything 1.4 s late, then at once",
        delayed,
        lambda observer: observer.health.dropped_by.skipped >= 3 and observer.analysed[-1].segment > 1,
    ),
]


def observe(case: Case) -> tuple[Observer, bool]:
    """Watch a camera until its fault was seen, and return whether it was."""
    camera = case.camera()
    observer = Observer(camera)
    with FaultyCamera(camera) as server:
        monitor = Monitor(
            [parse_source(server.url)],
            sample_hz=HZ,
            new_analysis=lambda: observer,  # type: ignore[arg-type,return-value]
            publish=observer,
            timing=MonitorTiming(heartbeat_s=0.1),
        )
        with monitor, observer.changed:
            return observer, observer.changed.wait_for(lambda: case.seen(observer), TIMEOUT_S)


@pytest.fixture(scope="module")
def observed() -> Iterator[dict[str, Future[tuple[Observer, bool]]]]:
    """Observations by fault. Several cameras run at a time, because they spend most of it waiting."""
    with ThreadPoolExecutor(CAMERAS_AT_A_TIME) as pool:
        yield {case.fault: pool.submit(observe, case) for case in CASES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_camera(case: Case, observed: dict[str, Future[tuple[Observer, bool]]]) -> None:
    """The fault is survived and named, and no window of samples spans a hole in real time."""
    observer, seen = observed[case.fault].result()
    assert seen, (observer.states, observer.health, observer.analysed)
    assert case.too_slow or "too_slow" not in observer.states
    for window in observer.windows():
        for last, frame in itertools.pairwise(window):
            assert 0 < frame.sent_s - last.sent_s <= MAX_BRIDGED_STEP / HZ + 0.07, window
            assert frame.width == last.width
    numbers = [frame.segment for frame in observer.analysed]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("fps", [8, 12, 25])
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *itertools.product(["libx264", "libx265", "mpeg4"], [".avi", ".mkv", ".mov"]),
        ("mpeg4 packed", ".avi"),  # exists in AVI only
    ],
)
def test_container_without_presentation_times(tmp_path: Path, codec: str, suffix: str, fps: int) -> None:
    """Time stamps in decoding order: exactly the due frames are delivered, in order, in one segment."""
    path = write_decoding_order(tmp_path / f"clip{suffix}", codec=codec, frames=3 * fps, fps=fps)
    with reading(path) as (reader, events):
        frames = list(frames_of(reader))
    assert [frame.segment for frame in frames] == [1] * len(frames)
    sampler = Sampler(HZ)
    due = [index for index in range(3 * fps) if sampler.offer(index / fps)]
    assert [frame_index(frame.image) for frame in frames] == due
    assert not any(isinstance(event, TooSlow) for event in events.received)


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (240, 320)])
def test_joined_recordings(tmp_path: Path, size: tuple[int, int]) -> None:
    """Two recordings in one file, of the same size or not: a segment each."""
    parts = [
        write_video(tmp_path / "one.ts", frames=50),
        write_video(tmp_path / "two.ts", frames=50, width=size[0], height=size[1]),
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with reading(path) as (reader, _):
        frames = list(frames_of(reader))
    segments = [frame.segment for frame in frames]
    assert segments == sorted(segments)
    halves = [[f for f in frames if f.segment == segment] for segment in dict.fromkeys(segments)]
    assert [half[0].width for half in halves] == [320, size[0]]
    assert all(len(half) in (15, 16, 17) for half in halves)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("default", [0, 1])
def test_two_video_tracks(tmp_path: Path, suffix: str, default: int) -> None:
    """The default track is read."""
    path = write_tracks(tmp_path / f"two{suffix}", widths=(320, 640), default=default)
    with reading(path) as (reader, _):
        assert {frame.width for frame in frames_of(reader)} == {(320, 640)[default]}
