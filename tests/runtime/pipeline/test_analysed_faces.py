"""Tests of the faces of one stream: their windows never span two segments, whatever comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.messages import MIN_VERDICT_HZ
from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.analysed_faces import AVERAGED_S, AnalysedFace, AnalysedFaces, FaceTurns
from runtime.pipeline.decision import RateLimit
from streams.faces.finder import Face
from streams.input.continuity import MAX_BRIDGED_STEP

CROP = np.zeros((16, 16, 3), np.uint8)
Sample = tuple[float, int, frozenset[int]]
"""Interval since the last sample in nominal intervals, new segments since then, ids of the faces in it."""

SAMPLES = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.8, 1.0, 1.6, 2.0]), st.floats(0.7, MAX_BRIDGED_STEP)),
        st.sampled_from([0, 0, 0, 0, 1, 3]),
        st.frozensets(st.integers(1, 4), max_size=4),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return replace(load_bundle(small_bundle), temporal=None)


def run(bundle: Bundle, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Analyse samples; check every window, and return what it holds after each sample and who is gone."""
    faces = AnalysedFaces(bundle, max_faces=3, expiry_s=1.0)
    time_s, segment, held = 0.0, 1, []
    for step, segments, ids in samples:
        # The sample after a change of segment can have any time.
        time_s = time_s + step / bundle.sample_hz if not segments else step
        segment += segments
        selected = faces.select(
            [Face(id=face, box=(0.0, 0.0, 9.0, 9.0 + face), score=0.9, detected=True) for face in sorted(ids)]
        )
        present, gone = faces.update(selected, time_s=time_s, segment=segment)
        for face in present:
            feature = np.zeros(bundle.feature_dim, np.float32)
            feature[:2] = segment, time_s
            face.window.push(time_s, CROP, feature)
            window = face.window.window_features()
            assert set(window[:, 0]) == {segment}
            assert np.all(np.diff(window[:, 1]) * bundle.sample_hz <= MAX_BRIDGED_STEP + 1e-2)
        assert not {face.id for face in gone} & {face.id for face in present}
        held.append((*(len(face.window) for face in present), -1, *(face.id for face in gone)))
    return held


@pytest.mark.fuzz
@given(samples=SAMPLES)
def test_no_window_spans_two_segments(bundle: Bundle, samples: list[Sample]) -> None:
    """A window holds samples of one segment, without a hole of more than one sample."""
    run(bundle, samples)


@pytest.mark.fuzz
@given(samples=SAMPLES)
def test_windows_depend_on_nothing_but_the_sequence(bundle: Bundle, samples: list[Sample]) -> None:
    """The same samples give the same windows."""
    assert run(bundle, samples) == run(bundle, samples)


def chosen(turns: FaceTurns, faces: int) -> set[int]:
    """Select from faces 1 to `faces`, of which the first is the largest."""
    return {
        face.id
        for face in turns.select(
            [
                Face(id=face, box=(0.0, 0.0, 9.0, 99.0 - face), score=0.9, detected=True)
                for face in range(1, faces + 1)
            ]
        )
    }


def test_all_faces_are_analysed_without_a_limit() -> None:
    """`scan` has no limit."""
    turns = FaceTurns(None, turn=8)
    assert (len(chosen(turns, 40)), turns.waiting) == (40, 0)


@pytest.mark.parametrize(("faces", "places"), [(9, 8), (12, 8), (30, 8), (2, 1)])
def test_faces_take_turns(faces: int, places: int) -> None:
    """Every face gets whole turns, as many as any other but one; the number that waits is known."""
    turns, turn = FaceTurns(places, turn=8), 8
    runs: dict[int, list[int]] = {face: [0] for face in range(1, faces + 1)}
    for _ in range(12 * turn * -(-faces // places)):
        selected = chosen(turns, faces)
        assert (len(selected), turns.waiting) == (places, faces - places)
        for face, lengths in runs.items():
            if face in selected:
                lengths[-1] += 1
            elif lengths[-1]:
                lengths.append(0)
    samples = [sum(lengths) for lengths in runs.values()]
    assert min(samples) > 0.7 * max(samples)
    # The last run of each may still be going on.
    assert all(length >= turn for lengths in runs.values() for length in lengths[:-1])


def test_face_that_is_missed_once_keeps_its_place() -> None:
    """A face that the detector misses in one sample does not lose its window to one that waits."""
    turns = FaceTurns(1, turn=8)
    face, other = (Face(id=number, box=(0.0, 0.0, 9.0, 9.0), score=0.9, detected=True) for number in (1, 2))
    assert turns.select([face]) == (face,)
    assert turns.select([]) == ()
    assert turns.select([face, other]) == (face,)


def test_the_logit_is_averaged_over_four_seconds(bundle: Bundle) -> None:
    """The mean is that of the windows of the last seconds, and starts again with the window."""
    face = AnalysedFace(1, bundle, expiry_s=1.0)
    face.mean_logit(0.0, 3.0)
    assert face.mean_logit(2.0, 5.0) == 4.0
    assert face.mean_logit(AVERAGED_S + 1.0, 7.0) == 6.0
    face.restart()
    face.mean_logit(6.0, -1.0)
    assert face.mean_logit(8.0, -2.0) == -1.5


def test_the_first_logits_are_drawn_towards_even_odds(bundle: Bundle) -> None:
    """Their weight grows with the time that they cover, up to that of a window, at any rate of verdicts."""
    shifted = replace(bundle, calibration=dataclasses.replace(bundle.calibration, offset=-2.0))
    face = AnalysedFace(1, shifted, expiry_s=1.0)
    assert (bundle.window, bundle.sample_hz) == (8, 8.0)
    assert face.mean_logit(0.0, 10.0) == pytest.approx(2.0 + 8.0 / 8)
    assert face.mean_logit(0.125, 10.0) == pytest.approx(2.0 + 8.0 / 4)
    assert face.mean_logit(0.625, 10.0) == pytest.approx(2.0 + 8.0 * 3 / 4)
    assert face.mean_logit(0.875, 10.0) == face.mean_logit(3.0, 10.0) == 10.0
    face.restart()
    assert face.mean_logit(9.0, 10.0) == pytest.approx(3.0)


@pytest.mark.parametrize("fps", [8.0, 7.5, 5.0])
def test_the_lowest_rate_of_verdicts_leaves_even_odds(fps: float, bundle: Bundle) -> None:
    """From the second verdict on the mean counts in full, at any frame rate."""
    face = AnalysedFace(1, replace(bundle, window=16), expiry_s=1.0)
    rate = RateLimit(MIN_VERDICT_HZ)
    times = [number / fps for number in range(round(20 * fps)) if rate.due(number / fps)]
    assert [face.mean_logit(time_s, 3.0) for time_s in times][1:] == [3.0] * (len(times) - 1)
    assert len(times) >= 9
