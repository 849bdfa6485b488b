"""One stream's analysis: real crops, a real engine of random weights, faces where the test puts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.errors import EngineFailed
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.stream_analysis import FaceVerdict, StreamAnalysis
from streams.faces.crop import Box
from streams.faces.finder import Face
from streams.features.temporal_residuals import clip_residuals
from streams.input.frame import Frame
from tests.support.temporal import flat_judge

HZ = 8
LEFT: Box = (20.0, 20.0, 40.0, 50.0)
RIGHT: Box = (200.0, 60.0, 60.0, 70.0)


class Script:
    """A finder that finds what it is told, one entry per frame."""

    def __init__(self, *frames: Sequence[tuple[int, Box]]) -> None:
        self._frames = iter(frames)

    def find(self, frame: Frame) -> list[Face]:
        return [Face(id=face, box=box, score=0.9, detected=True) for face, box in next(self._frames)]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def pictures() -> list[av.VideoFrame]:
    """Forty pictures that differ everywhere and from each other."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (40, 15, 20, 3), np.uint8)
    return [av.VideoFrame.from_ndarray(np.kron(one, np.ones((16, 16, 1), np.uint8))) for one in coarse]


@pytest.fixture
def frame_at(pictures: list[av.VideoFrame]) -> Callable[..., Frame]:
    """Give `frame_at(index, gap=..., captured=..., missed=...)`, the index-th sample of a stream."""

    def make(index: int, *, gap: bool | None = None, captured: float | None = None, missed: int = 0) -> Frame:
        return Frame(
            image=pictures[index % len(pictures)],
            pts=index,
            time_base=Fraction(1, HZ),
            captured=captured,
            decode_ms=1.5,
            missed=missed,
            gap=index == 0 if gap is None else gap,
        )

    return make


@pytest.fixture
def analysis_of(bundle: Bundle, engine: Engine) -> Callable[..., StreamAnalysis]:
    """Give `analysis_of(faces per frame, ...)`, an analysis that finds these."""

    def make(*frames: Sequence[tuple[int, Box]], **options: object) -> StreamAnalysis:
        settings: dict[str, object] = {
            "head": engine,
            "features": engine,
            "finder": Script(*frames),
            **options,
        }
        return StreamAnalysis(bundle, **settings)  # type: ignore[arg-type]

    return make


def states(verdicts: Sequence[FaceVerdict]) -> list[tuple[int, str]]:
    return [(verdict.face, verdict.state) for verdict in verdicts]


def test_a_verdict_equals_the_model_on_the_whole_clip(
    bundle: Bundle, engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Crop by crop through the buffer gives what the model gives on all crops of the window at once."""
    analysis = analysis_of(*[[(3, LEFT)]] * 12)
    crops = []
    for index in range(12):
        sighting = analysis.observe(frame_at(index))
        crops.append(sighting.crops[0])
        (verdict,) = analysis.conclude(sighting, engine.features(sighting.crops))
    clip = engine.features(np.stack(crops[-bundle.window :]))
    assert verdict.logit == pytest.approx(float(engine.logits(clip[np.newaxis])[0]), abs=1e-5)
    assert verdict.p_fake == pytest.approx(bundle.calibration.p_fake(verdict.logit or 0.0))


def test_flicker_is_added_to_the_network_s_logit(
    bundle: Bundle, engine: Engine, frame_at: Callable[..., Frame]
) -> None:
    """A bundle with a judge of flicker adds what it says of the window's crops; a gap makes it start anew."""
    judge = flat_judge(0.02, bias=0.5, window=8)
    told = {}
    for temporal in (None, judge):
        analysis = StreamAnalysis(
            replace(bundle, temporal=temporal),
            head=engine,
            features=engine,
            finder=Script(*[[(3, LEFT), (4, RIGHT)]] * 14),
        )
        crops, logits = [], []
        for index in range(14):
            sighting = analysis.observe(frame_at(index, gap=index == 9))
            crops.append(sighting.crops)
            verdicts = analysis.conclude(sighting, engine.features(sighting.crops))
            logits.append([verdict.logit for verdict in verdicts])
        told[temporal] = logits
    for face in (0, 1):
        for first, end in ((0, 6), (1, 9), (9, 13), (9, 14)):
            own = clip_residuals(np.stack([each[face] for each in crops[first:end]]), bundle.crop_margin)
            added = told[judge][end - 1][face] - told[None][end - 1][face]
            assert added == pytest.approx(float(judge.logits(own[np.newaxis])[0]), abs=1e-4)
            assert abs(added) > 0.1
    assert told[judge][9] == [None, None]


def test_a_face_warms_up(analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]) -> None:
    """There is no score before `min_frames` samples; `fill` tells how far it is."""
    analysis = analysis_of(*[[(1, LEFT)]] * 5)
    verdicts = [analysis.analyse(frame_at(index))[0] for index in range(5)]
    assert [verdict.state == "warming" for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.p_fake is None for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.window_fill for verdict in verdicts] == [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8]


def test_a_gap_starts_anew(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """What was seen before a gap in the stream is not mixed with what comes after."""
    analysis = analysis_of(*[[(1, LEFT)]] * 9)
    for index in range(8):
        (verdict,) = analysis.analyse(frame_at(index))
    assert verdict.window_fill == 1.0
    (verdict,) = analysis.analyse(frame_at(20, gap=True))
    assert (verdict.state, verdict.p_fake, verdict.window_fill) == ("warming", None, 1 / 8)


def test_one_missed_sample_is_bridged_and_two_are_not(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """A face that two samples do not show says goodbye once; coming back it has an empty buffer."""
    seen, missed = [(1, LEFT)], []
    analysis = analysis_of(*[seen] * 4, missed, seen, missed, missed, missed, seen)
    told = [analysis.analyse(frame_at(index)) for index in range(10)]
    assert told[4] == []
    assert told[5][0].window_fill == 5 / 8
    assert [states(verdicts) for verdicts in told[6:9]] == [[], [(1, "stale")], []]
    assert told[7][0].p_fake is None
    assert told[7][0].latency is None
    assert (told[9][0].state, told[9][0].window_fill) == ("warming", 1 / 8)


def test_a_lost_sample_counts_as_one_that_does_not_show_the_face(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """One lost sample is bridged; with one beside it in which the face was not found, nothing is left."""
    seen, missed = [(1, LEFT)], []
    analysis = analysis_of(*[seen] * 4, missed, seen, seen, missed)
    fills = []
    for index, lost in ((0, 0), (1, 0), (3, 1), (4, 0), (5, 0), (7, 1), (8, 0)):
        fills.append([verdict.window_fill for verdict in analysis.analyse(frame_at(index, missed=lost))])
    assert fills == [[1 / 8], [2 / 8], [3 / 8], [4 / 8], [], [1 / 8], [2 / 8]]
    (gone,) = analysis.analyse(frame_at(10, missed=1))
    assert (gone.face, gone.state) == (1, "stale")


def test_faces_keep_their_own(
    engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Two faces with different buffers each get the logit that they get alone, in any order."""
    one, two = (1, LEFT), (2, RIGHT)
    both = analysis_of([one], [one], *[[one, two], [two, one]] * 4)
    alone = analysis_of([], [], *[[two]] * 8)
    for index in range(10):
        together = {verdict.face: verdict for verdict in both.analyse(frame_at(index))}
        by_itself = alone.analyse(frame_at(index))
    assert together[2].logit == pytest.approx(by_itself[0].logit, abs=1e-5)
    assert together[1].logit != together[2].logit
    assert list(both.faces) == [1, 2]


def test_frames_that_share_a_backbone_call_give_the_same(
    engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Observing several frames before concluding them changes no verdict."""
    script = [
        [(1, LEFT)],
        [(1, LEFT), (2, RIGHT)],
        [],
        [(2, RIGHT)],
        [(2, RIGHT)],
        [(1, LEFT), (2, RIGHT)],
    ] * 2
    stepwise, ahead = analysis_of(*script), analysis_of(*script)
    expected = [analysis_verdicts for i in range(12) for analysis_verdicts in stepwise.analyse(frame_at(i))]
    sightings = [ahead.observe(frame_at(index)) for index in range(12)]
    features = engine.features(np.concatenate([sighting.crops for sighting in sightings]))
    found, end = [], 0
    for sighting in sightings:
        start, end = end, end + len(sighting.faces)
        found += ahead.conclude(sighting, features[start:end])
    assert states(found) == states(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.logit == pytest.approx(other.logit, abs=1e-5)


def test_a_verdict_rate_below_the_sample_rate(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Fewer verdicts are given, from buffers that are as full as ever, and nothing expires in between."""
    clock = Clock()
    analysis = analysis_of(*[[(1, LEFT)]] * 32, verdict_hz=2.0, expiry_s=0.6, clock=clock)
    told = []
    for index in range(32):
        clock.now += 1 / HZ
        told.append(analysis.analyse(frame_at(index)))
    given = [verdicts[0] for verdicts in told if verdicts]
    assert len(given) == 8
    assert [verdict.window_fill for verdict in given[2:]] == [1.0] * 6
    assert all(verdict.p_fake is not None for verdict in given[1:])


def test_too_many_faces_leave_those_in_that_are_followed(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """The number of faces judged is bounded; a larger face that comes later does not push one out."""
    small, large = (1, LEFT), (2, RIGHT)
    analysis = analysis_of([small], [large, small], [large, small], [large], max_faces=1)
    told = [states(analysis.analyse(frame_at(index))) for index in range(4)]
    assert told == [[(1, "warming")], [(1, "warming")], [(1, "warming")], [(2, "warming")]]


def test_a_score_that_comes_too_late_is_stale(
    engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """If the machine was held up for longer than a verdict may live, the frame's score does not go out."""
    clock = Clock()

    class HeldUp:
        held_s = 0.0

        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            clock.now += self.held_s
            return engine.features(crops)

    features = HeldUp()
    analysis = analysis_of(*[[(1, LEFT)]] * 6, features=features, expiry_s=0.6, clock=clock)
    for index in range(5):
        (verdict,) = analysis.analyse(frame_at(index))
    assert verdict.p_fake is not None
    features.held_s = 3.0
    (verdict,) = analysis.analyse(frame_at(5))
    assert (verdict.state, verdict.p_fake) == ("stale", None)


def test_a_broken_engine_gives_no_verdict(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """The engine's error comes out as it is: nothing is scored in its place."""

    class Broken:
        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise EngineFailed("onnxruntime", "out of memory")

    analysis = analysis_of([(1, LEFT)], features=Broken())
    with pytest.raises(EngineFailed, match="out of memory"):
        analysis.analyse(frame_at(0))


def test_latency_counts_from_capture(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Of a live frame the total is its age at the verdict; of a file's frame, the time spent on it."""
    live = analysis_of([(1, LEFT)], wall=lambda: 1000.25)
    (verdict,) = live.analyse(frame_at(0, captured=1000.0))
    assert verdict.latency is not None
    assert verdict.latency.total == pytest.approx(250.0)
    assert verdict.captured == 1000.0
    clock = Clock()
    (verdict,) = analysis_of([(1, LEFT)], clock=clock).analyse(frame_at(0))
    assert verdict.latency is not None
    assert verdict.latency.total == verdict.latency.decode == 1.5
    assert verdict.captured is None


def test_the_message_of_a_verdict(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """What goes out holds the box in shares of the picture and the cost of each stage."""
    (verdict,) = analysis_of([(4, RIGHT)]).analyse(frame_at(0))
    message = verdict.message("cam").stamp(seq=1, time=5.0)
    assert message.box == pytest.approx((200 / 320, 60 / 240, 60 / 320, 70 / 240), abs=1e-4)
    assert (message.stream, message.face, message.state) == ("cam", 4, "warming")
    assert message.latency_ms is not None
    assert message.latency_ms.decode == 1.5


def test_clear_forgets(analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]) -> None:
    """After a reconnection nothing of the stream before it is left."""
    analysis = analysis_of(*[[(1, LEFT)]] * 6)
    for index in range(5):
        analysis.analyse(frame_at(index))
    analysis.clear()
    assert list(analysis.faces) == []
    (verdict,) = analysis.analyse(frame_at(5))
    assert (verdict.state, verdict.window_fill) == ("warming", 1 / 8)
