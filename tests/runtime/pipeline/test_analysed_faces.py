"""Tests of the faces of one stream: their windows never span two segments, whatever comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.model.bundle import Bundle, load_bundle
from runtime.pipeline.analysed_faces import AnalysedFaces
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
