"""Tests of the analysis of one stream, with real crops, a real engine and scripted face positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import msgspec
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
from streams.features.temporal_residuals import FaceContext, ResidualMeter
from streams.input.frame import Frame
from tests.support.temporal import uniform_temporal_classifier

HZ = 8
LEFT: Box = (20.0, 20.0, 40.0, 50.0)
RIGHT: Box = (200.0, 60.0, 60.0, 70.0)


class ScriptedFinder:
    """Finder that reports given faces, one entry per frame."""

    def __init__(self, *frames: Sequence[tuple[int, Box]]) -> None:
        self._frames = iter(frames)

    def find(self, frame: Frame) -> list[Face]:
        return [Face(id=face, box=box, score=0.9, detected=True) for face, box in next(self._frames)]


class CountingBackbone:
    """Backbone that records the number of crops in each call."""

    def __init__(self, engine: Engine) -> None:
        self.calls: list[int] = []
        self._engine = engine

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls.append(len(crops))
        return self._engine.features(crops)


class Clock:
    """Clock that is set by the test."""

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
def images() -> list[av.VideoFrame]:
    """Forty images of random blocks, each different."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (40, 15, 20, 3), np.uint8)
    return [av.VideoFrame.from_ndarray(np.kron(one, np.ones((16, 16, 1), np.uint8))) for one in coarse]


@pytest.fixture
def frame_at(images: list[av.VideoFrame]) -> Callable[..., Frame]:
    """Function `frame_at(index, segment=..., captured=...)` that returns one sample of a stream."""

    def make(index: int, *, segment: int = 1, captured: float | None = None) -> Frame:
        return Frame(
            image=images[index % len(images)],
            pts=index,
            time_base=Fraction(1, HZ),
            captured=captured,
            decode_ms=1.5,
            connection=1,
            segment=segment,
        )

    return make


@pytest.fixture
def analysis_of(bundle: Bundle, engine: Engine) -> Callable[..., StreamAnalysis]:
    """Function `analysis_of(*faces_per_frame, ...)` that returns an analysis with a scripted finder."""

    def make(*frames: Sequence[tuple[int, Box]], **options: object) -> StreamAnalysis:
        settings: dict[str, object] = {
            "head": engine,
            "features": engine,
            "finder": ScriptedFinder(*frames),
            **options,
        }
        return StreamAnalysis(bundle, **settings)  # type: ignore[arg-type]

    return make


def states(verdicts: Sequence[FaceVerdict]) -> list[tuple[int, str]]:
    return [(verdict.face, verdict.state) for verdict in verdicts]


def test_verdict_equals_the_model_on_the_whole_window(
    bundle: Bundle, engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Features buffered crop by crop give the same logit as all crops of the window at once.

    `p_fake` is that of the mean logit.
    """
    analysis = analysis_of(*[[(3, LEFT)]] * 12)
    crops, logits = [], []
    for index in range(12):
        observed = analysis.observe(frame_at(index))
        crops.append(observed.crops[0])
        (verdict,) = analysis.score(observed, engine.features(observed.crops))
        logits += [verdict.logit] if verdict.logit is not None else []
    clip = engine.features(np.stack(crops[-bundle.window :]))
    assert verdict.logit == pytest.approx(float(engine.logits(clip[np.newaxis])[0]), abs=1e-5)
    assert verdict.p_fake == pytest.approx(bundle.calibration.p_fake(float(np.mean(logits))))


def test_temporal_classifier_is_added_to_the_logit_of_the_head(
    bundle: Bundle, engine: Engine, frame_at: Callable[..., Frame]
) -> None:
    """The temporal classifier's logit on the window's residuals is added; they restart after a gap."""
    classifier = uniform_temporal_classifier(0.02, bias=0.5, window=8)
    logits: dict[bool, list[list[float | None]]] = {False: [], True: []}
    for with_temporal in (False, True):
        analysis = StreamAnalysis(
            msgspec.structs.replace(bundle, temporal=classifier if with_temporal else None),
            head=engine,
            features=engine,
            finder=ScriptedFinder(*[[(3, LEFT), (4, RIGHT)]] * 14),
        )
        contexts: list[tuple[FaceContext | None, ...]] = []
        for index in range(14):
            observed = analysis.observe(frame_at(index, segment=2 if index >= 9 else 1))
            contexts.append(observed.contexts)
            verdicts = analysis.score(observed, engine.features(observed.crops))
            logits[with_temporal].append([verdict.logit for verdict in verdicts])
    for face in (0, 1):
        for first, end in ((0, 6), (1, 9), (9, 13), (9, 14)):
            meter = ResidualMeter()
            own = np.stack(
                [meter.measure(c) for each in contexts[first:end] if (c := each[face]) is not None]
            )
            total, head = logits[True][end - 1][face], logits[False][end - 1][face]
            assert total is not None
            assert head is not None
            added = total - head
            assert added == pytest.approx(float(classifier.logits(own[np.newaxis])[0]), abs=1e-4)
            assert abs(added) > 0.1
    assert logits[True][9] == [None, None]


def test_features_of_every_second_sample(
    bundle: Bundle, engine: Engine, frame_at: Callable[..., Frame]
) -> None:
    """Each sample has a verdict, the first as early as ever, from the features of every second crop."""
    half = msgspec.structs.replace(bundle, feature_every=2)
    counted = CountingBackbone(engine)
    analysis = StreamAnalysis(
        half, head=engine, features=counted, finder=ScriptedFinder(*[[(1, LEFT), (2, RIGHT)]] * 14)
    )
    crops, logits = [], []
    for index in range(14):
        verdicts = analysis.analyse(frame_at(index, segment=2 if index >= 9 else 1))
        crops.append([analysis.crops[face] for face in (1, 2)])
        logits.append([verdict.logit for verdict in verdicts])
    # Both in the first sample of a segment, then in turns.
    assert counted.calls == [2, *[1] * 8, 2, *[1] * 4]
    assert [None in pair for pair in logits] == [*[True] * 3, *[False] * 6, *[True] * 3, *[False] * 2]
    held = engine.features(np.stack([crops[index][0] for index in (0, 2, 2, 4, 4, 6, 6, 8)]))
    assert logits[8][0] == pytest.approx(float(engine.logits(held[np.newaxis])[0]), abs=1e-5)
    assert logits[7][0] == logits[6][0] != logits[8][0], "no new feature"


def test_residuals_of_every_second_sample(
    bundle: Bundle, engine: Engine, frame_at: Callable[..., Frame]
) -> None:
    """Residuals are measured where features are computed, and the logit changes with them."""
    classifier = uniform_temporal_classifier(0.05, bias=0.5, window=8)
    half = msgspec.structs.replace(bundle, feature_every=2, temporal=classifier)
    analysis = StreamAnalysis(half, head=engine, features=engine, finder=ScriptedFinder(*[[(1, LEFT)]] * 12))
    meter, rows, logits = ResidualMeter(), [], []
    features: list[NDArray[np.float32]] = []
    for index in range(12):
        observed = analysis.observe(frame_at(index))
        (context,) = observed.contexts
        assert (context is not None) == (index % 2 == 0) == (len(observed.backbone_crops) == 1)
        rows.append(meter.skip() if context is None else meter.measure(context))
        new = engine.features(observed.backbone_crops) if context is not None else None
        features.append(features[-1] if new is None else new[0])
        (verdict,) = analysis.score(observed, new)
        logits.append(verdict.logit)
    network = float(engine.logits(np.stack(features[3:11])[np.newaxis])[0])
    temporal = float(classifier.logits(np.stack(rows[3:11])[np.newaxis])[0])
    assert abs(temporal) > 0.1
    assert logits[10] == pytest.approx(network + temporal, abs=1e-4)
    assert logits[11] == logits[10] != logits[9]


def test_frames_that_share_a_call_with_features_of_every_second_sample(
    bundle: Bundle, engine: Engine, frame_at: Callable[..., Frame]
) -> None:
    """Misses, gaps and new segments change no verdict, whether frames are observed together or one by one."""
    half = msgspec.structs.replace(bundle, feature_every=2)
    one, both = [(1, LEFT)], [(1, LEFT), (2, RIGHT)]
    script = [one, both, both, one, both, both, [], both, both, both, both, [], [], both, both, both]
    indices = [*range(6), *range(7, 14), *range(16, 19)]
    segments = [1] * 9 + [2] * 7

    def analysis() -> StreamAnalysis:
        return StreamAnalysis(half, head=engine, features=engine, finder=ScriptedFinder(*script))

    frames = [frame_at(index, segment=segment) for index, segment in zip(indices, segments, strict=True)]
    one_by_one, together = analysis(), analysis()
    expected = [verdict for frame in frames for verdict in one_by_one.analyse(frame)]
    observed = [together.observe(frame) for frame in frames]
    features = engine.features(np.concatenate([each.backbone_crops for each in observed]))
    assert len(features) < sum(len(each.faces) for each in observed)
    verdicts, end = [], 0
    for each in observed:
        start, end = end, end + len(each.backbone_crops)
        verdicts += together.score(each, features[start:end])
    assert states(verdicts) == states(expected)
    for verdict, other in zip(verdicts, expected, strict=True):
        assert verdict.logit == pytest.approx(other.logit, abs=1e-5)


def test_face_warms_up(analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]) -> None:
    """There is no score before `min_frames` samples; `window_fill` grows meanwhile."""
    analysis = analysis_of(*[[(1, LEFT)]] * 5)
    verdicts = [analysis.analyse(frame_at(index))[0] for index in range(5)]
    assert [verdict.state == "warming" for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.p_fake is None for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.window_fill for verdict in verdicts] == [1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8]


def test_gap_restarts_the_window(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Samples from before a gap in the stream are dropped."""
    analysis = analysis_of(*[[(1, LEFT)]] * 9)
    for index in range(8):
        (verdict,) = analysis.analyse(frame_at(index))
    assert verdict.window_fill == 1.0
    (verdict,) = analysis.analyse(frame_at(20, segment=2))
    assert (verdict.state, verdict.p_fake, verdict.window_fill) == ("warming", None, 1 / 8)


def test_one_missed_sample_is_bridged_and_two_are_not(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """A face missing from two samples becomes stale once; when it reappears its window is empty."""
    seen: list[tuple[int, Box]] = [(1, LEFT)]
    missed: list[tuple[int, Box]] = []
    analysis = analysis_of(*[seen] * 4, missed, seen, missed, missed, missed, seen)
    verdicts = [analysis.analyse(frame_at(index)) for index in range(10)]
    assert verdicts[4] == []
    assert verdicts[5][0].window_fill == 5 / 8
    assert [states(of_frame) for of_frame in verdicts[6:9]] == [[], [(1, "stale")], []]
    assert verdicts[7][0].p_fake is None
    assert verdicts[7][0].latency is None
    assert (verdicts[9][0].state, verdicts[9][0].window_fill) == ("warming", 1 / 8)


def test_lost_sample_counts_as_a_miss(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """One lost sample is bridged; together with a sample without the face it clears the window."""
    seen: list[tuple[int, Box]] = [(1, LEFT)]
    missed: list[tuple[int, Box]] = []
    analysis = analysis_of(*[seen] * 4, missed, seen, seen, missed)
    fills = []
    for index in (0, 1, 3, 4, 5, 7, 8):
        fills.append([verdict.window_fill for verdict in analysis.analyse(frame_at(index))])
    assert fills == [[1 / 8], [2 / 8], [3 / 8], [4 / 8], [], [1 / 8], [2 / 8]]
    (gone,) = analysis.analyse(frame_at(10))
    assert (gone.face, gone.state) == (1, "stale")


def test_faces_do_not_influence_each_other(
    engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Each of two faces gets the logit that it gets alone, whatever their order."""
    one, two = (1, LEFT), (2, RIGHT)
    both = analysis_of([one], [one], *[[one, two], [two, one]] * 4)
    alone = analysis_of([], [], *[[two]] * 8)
    for index in range(10):
        together = {verdict.face: verdict for verdict in both.analyse(frame_at(index))}
        separate = alone.analyse(frame_at(index))
    assert together[2].logit == pytest.approx(separate[0].logit, abs=1e-5)
    assert together[1].logit != together[2].logit
    assert list(both.faces) == [1, 2]


def test_frames_that_share_a_backbone_call_give_the_same_verdicts(
    engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Observing several frames before scoring them changes no verdict."""
    script = [
        [(1, LEFT)],
        [(1, LEFT), (2, RIGHT)],
        [],
        [(2, RIGHT)],
        [(2, RIGHT)],
        [(1, LEFT), (2, RIGHT)],
    ] * 2
    one_by_one, together = analysis_of(*script), analysis_of(*script)
    expected = [verdict for index in range(12) for verdict in one_by_one.analyse(frame_at(index))]
    frames = [together.observe(frame_at(index)) for index in range(12)]
    features = engine.features(np.concatenate([observed.crops for observed in frames]))
    verdicts, end = [], 0
    for observed in frames:
        start, end = end, end + len(observed.faces)
        verdicts += together.score(observed, features[start:end])
    assert states(verdicts) == states(expected)
    for verdict, other in zip(verdicts, expected, strict=True):
        assert verdict.logit == pytest.approx(other.logit, abs=1e-5)


def test_verdict_rate_below_the_sample_rate(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """There are fewer verdicts, from windows of all samples, and none expires between two verdicts."""
    clock = Clock()
    analysis = analysis_of(*[[(1, LEFT)]] * 32, verdict_hz=2.0, expiry_s=0.6, clock=clock)
    per_frame = []
    for index in range(32):
        clock.now += 1 / HZ
        per_frame.append(analysis.analyse(frame_at(index)))
    verdicts = [of_frame[0] for of_frame in per_frame if of_frame]
    assert len(verdicts) == 8
    assert [verdict.window_fill for verdict in verdicts[2:]] == [1.0] * 6
    assert all(verdict.p_fake is not None for verdict in verdicts[1:])


def test_number_of_faces_is_limited(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """A larger face that appears later does not replace one that is already being analysed."""
    small, large = (1, LEFT), (2, RIGHT)
    analysis = analysis_of([small], [large, small], [large, small], [large], max_faces=1)
    per_frame = [states(analysis.analyse(frame_at(index))) for index in range(4)]
    assert per_frame == [[(1, "warming")], [(1, "warming")], [(1, "warming")], [(2, "warming")]]


def test_score_that_comes_too_late_is_stale(
    engine: Engine, analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """A frame whose analysis took longer than `expiry_s` gets a stale verdict without a score."""
    clock = Clock()

    class SlowBackbone:
        delay_s = 0.0

        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            clock.now += self.delay_s
            return engine.features(crops)

    features = SlowBackbone()
    analysis = analysis_of(*[[(1, LEFT)]] * 6, features=features, expiry_s=0.6, clock=clock)
    for index in range(5):
        (verdict,) = analysis.analyse(frame_at(index))
    assert verdict.p_fake is not None
    features.delay_s = 3.0
    (verdict,) = analysis.analyse(frame_at(5))
    assert (verdict.state, verdict.p_fake) == ("stale", None)


def test_engine_error_is_raised(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """There is no verdict on a frame whose backbone call failed."""

    class Broken:
        def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise EngineFailed("onnxruntime", "out of memory")

    analysis = analysis_of([(1, LEFT)], features=Broken())
    with pytest.raises(EngineFailed, match="out of memory"):
        analysis.analyse(frame_at(0))


def test_total_latency(analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]) -> None:
    """The total is the age of a live frame at the verdict, or the time spent on a frame of a file."""
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


def test_message_of_a_verdict(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """The message contains the box in shares of the frame and the time of each stage."""
    (verdict,) = analysis_of([(4, RIGHT)]).analyse(frame_at(0))
    message = verdict.message("cam").stamp(seq=1, time=5.0)
    assert message.box == pytest.approx((200 / 320, 60 / 240, 60 / 320, 70 / 240), abs=1e-4)
    assert (message.stream, message.face, message.state) == ("cam", 4, "warming")
    assert message.latency_ms is not None
    assert message.latency_ms.decode == 1.5


def test_face_that_is_not_in_a_new_segment_is_gone(
    analysis_of: Callable[..., StreamAnalysis], frame_at: Callable[..., Frame]
) -> None:
    """Its verdict becomes stale with the first frame of the segment, and the other face starts again."""
    analysis = analysis_of(*[[(1, LEFT)]] * 5, [(2, LEFT)])
    for index in range(5):
        analysis.analyse(frame_at(index))
    new, gone = analysis.analyse(frame_at(5, segment=2))
    assert (new.face, new.state, new.window_fill) == (2, "warming", 1 / 8)
    assert (gone.face, gone.state) == (1, "stale")
    assert list(analysis.faces) == [2]
