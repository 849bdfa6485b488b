"""Faults of the video: it stands still, and so does the face. There must be no verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from skimage.data import astronaut

from runtime.engines.factory import open_engine
from runtime.engines.interface import Engine
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.scan_result import ScanAccumulator
from runtime.pipeline.stream_analysis import FaceVerdict, StreamAnalysis
from streams.faces.finder import Face
from streams.input.frame import Frame
from tests.support.small_bundle import write_small_bundle
from tests.support.temporal import uniform_temporal_classifier

Image = NDArray[np.uint8]
BOX = (170.0, 60.0, 90.0, 120.0)


class OneFace:
    """Finder of one face that is always at the same place."""

    def __init__(self, roll: float) -> None:
        self._roll = roll

    def find(self, frame: Frame) -> list[Face]:
        return [Face(id=1, box=BOX, score=0.9, detected=True, roll=self._roll)]


def portrait() -> Image:
    return np.asarray(astronaut(), np.uint8)[:400].copy()  # type: ignore[no-untyped-call]


def repeated(index: int, rng: np.random.Generator) -> Image:
    return portrait()


def noisy(index: int, rng: np.random.Generator) -> Image:
    return np.clip(portrait() + rng.normal(0, 10, (400, 512, 3)), 0, 255).astype(np.uint8)


def overlaid(index: int, rng: np.random.Generator) -> Image:
    image = portrait()
    image[370:390, 20 : 30 + 5 * index] = 255
    return image


def speaking(index: int, rng: np.random.Generator) -> Image:
    image = portrait()
    shift = round(3 * np.sin(0.9 * index))
    image[135:190, 180:250] = np.roll(image, shift, axis=0)[135:190, 180:250]
    return image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    small = load_bundle(write_small_bundle(tmp_path_factory.mktemp("model") / "small"))
    return replace(small, temporal=uniform_temporal_classifier(0.0, bias=5.0, window=small.window))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with open_engine(bundle, "onnxruntime", threads=1) as engine:
        yield engine


def run(
    bundle: Bundle,
    engine: Engine,
    image: Callable[[int, np.random.Generator], Image],
    *,
    samples: int = 24,
    roll: float = 0.0,
) -> tuple[list[FaceVerdict], ScanAccumulator]:
    """Analyse samples at 8 Hz; return the verdicts and the accumulated scan."""
    analysis = StreamAnalysis(bundle, head=engine, features=engine, finder=OneFace(roll))
    accumulator, verdicts = ScanAccumulator(bundle), []
    rng = np.random.default_rng(5)
    for index in range(samples):
        frame = Frame(
            image=av.VideoFrame.from_ndarray(image(index, rng), "rgb24"),
            pts=index,
            time_base=Fraction(1, 8),
            captured=None,
            decode_ms=0.0,
            connection=1,
            segment=1,
        )
        observed = analysis.observe(frame)
        found = analysis.score(observed, engine.features(observed.crops) if observed.faces else None)
        accumulator.add(observed, found)
        verdicts += found
    return verdicts, accumulator


@pytest.mark.parametrize("image", [noisy, overlaid])
def test_face_that_does_not_move_has_no_verdict(
    bundle: Bundle, engine: Engine, image: Callable[[int, np.random.Generator], Image]
) -> None:
    """A photo with sensor noise is `uncertain`, and so is a frozen face beside a moving overlay."""
    verdicts, accumulator = run(bundle, engine, image)
    assert {verdict.state for verdict in verdicts[:3]} == {"warming"}
    assert {(verdict.state, verdict.reason) for verdict in verdicts[8:]} == {("uncertain", "no_motion")}
    assert (accumulator.result("x").state, accumulator.result("x").p_fake) == ("no_motion", None)


def test_temporal_classifier_adds_nothing_to_a_still(bundle: Bundle, engine: Engine) -> None:
    """The score of a still is the network's."""
    with_classifier, _ = run(bundle, engine, noisy)
    without, _ = run(replace(bundle, temporal=None), engine, noisy)
    assert with_classifier[-1].logit == pytest.approx(without[-1].logit)
    moving, _ = run(bundle, engine, speaking)
    moving_without, _ = run(replace(bundle, temporal=None), engine, speaking)
    assert moving[-1].logit != pytest.approx(moving_without[-1].logit)


def test_repeated_frame_is_not_analysed(bundle: Bundle, engine: Engine) -> None:
    """Identical frames give one sample and no verdict."""
    verdicts, accumulator = run(bundle, engine, repeated)
    assert [(verdict.state, verdict.window_fill) for verdict in verdicts] == [("warming", 1 / bundle.window)]
    result = accumulator.result("x")
    assert (result.state, result.frames, result.p_fake) == ("no_motion", 1, None)


def test_moving_face_is_scored(bundle: Bundle, engine: Engine) -> None:
    """A mouth that moves is enough."""
    verdicts, accumulator = run(bundle, engine, speaking)
    assert all(verdict.reason is None for verdict in verdicts)
    assert accumulator.result("x").state == "scored"


def test_frozen_face_loses_its_verdict(bundle: Bundle, engine: Engine) -> None:
    """A face that stops moving is `no_motion` once most of its window is still; it is scored again later."""

    def freezing(index: int, rng: np.random.Generator) -> Image:
        still = 12 <= index < 36
        image = speaking(11 if still else index, rng).astype(np.int16)
        return np.clip(image + np.rint(rng.normal(0, 2, image.shape)), 0, 255).astype(np.uint8)

    verdicts, _ = run(bundle, engine, freezing, samples=60)
    reasons = [verdict.reason for verdict in verdicts]
    assert reasons[:12] == [None] * 12
    assert reasons[12 + bundle.window : 36] == ["no_motion"] * (24 - bundle.window)
    assert reasons[36 + bundle.window :] == [None] * (24 - bundle.window)


def test_turned_face_has_no_verdict(bundle: Bundle, engine: Engine) -> None:
    """A face that is upside down is `uncertain` for `turned`, and the video has no score."""
    verdicts, accumulator = run(bundle, engine, speaking, roll=175.0)
    assert {(verdict.state, verdict.reason) for verdict in verdicts[8:]} == {("uncertain", "turned")}
    assert (accumulator.result("x").state, accumulator.result("x").p_fake) == ("turned", None)


def in_the_dark(image: Image) -> Image:
    return (image // 12).astype(np.uint8)


def without_colour(image: Image) -> Image:
    return np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("change", "reason"), [(in_the_dark, "dark"), (without_colour, "no_colour")])
def test_poor_image_gets_no_decision(
    bundle: Bundle, engine: Engine, change: Callable[[Image], Image], reason: str
) -> None:
    """A dark or a grey face is `uncertain`, and so is the video, which keeps its score."""
    verdicts, accumulator = run(bundle, engine, lambda index, rng: change(speaking(index, rng)))
    found = [(verdict.state, verdict.reason) for verdict in verdicts[8:]]
    assert set(found) == {("uncertain", reason)}
    result = accumulator.result("x")
    assert (result.state, result.reason) == ("uncertain", reason)
    assert result.p_fake is not None
    assert result.to_dict()["reason"] == reason


def test_dark_stretch_does_not_count(bundle: Bundle, engine: Engine) -> None:
    """A shorter dark stretch leaves the video scored, by its other windows alone."""

    def flickering(index: int, rng: np.random.Generator) -> Image:
        image = speaking(index, rng)
        return in_the_dark(image) if 40 <= index < 60 else image

    verdicts, accumulator = run(bundle, engine, flickering, samples=90)
    result = accumulator.result("x")
    assert (result.state, result.reason) == ("scored", None)
    decided = sum(
        verdict.state in ("real", "fake", "uncertain") and not verdict.reason for verdict in verdicts
    )
    assert result.faces[0].windows == decided
    assert verdicts[-1].reason is None
