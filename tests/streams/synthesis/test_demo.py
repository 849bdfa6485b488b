"""Tests of the demo: what it shows, that it says so, and that the detector sees its face."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.frame import Frame
from streams.synthesis.demo import CYCLE_S, demo_frames, demo_truth

Rgb = NDArray[np.uint8]
FPS = 8  # the rate at which such a stream is analysed
GREEN, RED = (46, 160, 67), (218, 54, 51)


@pytest.fixture(scope="module")
def cycle() -> list[Rgb]:
    """One whole course of the demo, a picture for every sample."""
    return [rgb for _, rgb in islice(demo_frames(fps=FPS), round(CYCLE_S * FPS))]


def test_frames_are_720p_counted_and_never_end() -> None:
    """Pictures have the advertised shape, and their pts go on past the end of a cycle."""
    frames = list(islice(demo_frames(fps=1), 30))
    assert [pts for pts, _ in frames] == list(range(30))
    assert all(rgb.shape == (720, 1280, 3) and rgb.dtype == np.uint8 for _, rgb in frames)
    assert np.array_equal(frames[0][1], frames[24][1]), "real phases repeat"


def test_the_same_every_time() -> None:
    """Two runs give the same pictures, and pictures that were given out are not drawn over later."""
    first = [rgb for _, rgb in islice(demo_frames(fps=2), 26)]
    for one, (_, other) in zip(first, demo_frames(fps=2), strict=False):
        assert np.array_equal(one, other)


def test_every_kind_of_moment_occurs_for_seconds() -> None:
    """A cycle shows the untouched and the forged face for long enough to be judged, and an empty picture."""
    truths = [demo_truth(index / FPS) for index in range(round(CYCLE_S * FPS))]
    assert truths.count("real") >= 8 * FPS
    assert truths.count("forged") >= 8 * FPS
    assert truths.count("away") >= 2 * FPS
    assert truths[0] == "real", "the demo starts with something to see"
    assert demo_truth(CYCLE_S + 1.0) == demo_truth(1.0)


def test_the_picture_says_what_it_shows(cycle: list[Rgb]) -> None:
    """A green plate stands in the corner with the untouched face, a red one with the forged one."""
    for index, rgb in enumerate(cycle):
        truth = demo_truth(index / FPS)
        if truth != "away":
            assert tuple(rgb[30, 30]) == (GREEN if truth == "real" else RED), index / FPS


def test_the_forged_face_differs_from_the_real_one_there_and_only_there(cycle: list[Rgb]) -> None:
    """The forged face repeats the movements of the real one, so their difference is what forging changed."""
    for index in range(2 * FPS, 7 * FPS):
        real, forged = cycle[index].astype(int), cycle[index + 9 * FPS]
        rows, columns = np.nonzero(np.abs(real - forged).max(axis=2) > 1)
        below_label = rows > 120
        assert below_label.sum() > 2000, index
        assert np.ptp(rows[below_label]) < 320
        assert np.ptp(columns[below_label]) < 320


def test_forging_changes_a_little_every_frame() -> None:
    """Frame by frame the colour that forging adds is another one, but near the one before."""
    start, shift = 13 * 25, 9 * 25
    frames = islice(demo_frames(fps=25), start + 10)
    kept = {pts: rgb for pts, rgb in frames if 0 <= pts - start < 10 or 0 <= pts - start + shift < 10}
    tints = [(kept[start + n] - kept[start + n - shift].astype(float))[120:].mean() for n in range(10)]
    steps = np.abs(np.diff(tints))
    assert steps.min() > 0
    assert steps.max() < np.abs(tints).max()


def test_the_face_is_found_where_it_is(
    infer: Infer, cycle: list[Rgb], make_frame: Callable[..., Frame]
) -> None:
    """The detector finds exactly one face in at least 95 % of the samples that show a whole one."""
    detector = Detector(infer)
    found = [
        len(detector.detect(make_frame(rgb).image, 320)) == 1
        for index, rgb in enumerate(cycle)
        if index % 2 == 0 and demo_truth(index / FPS) != "away"
    ]
    assert np.mean(found) >= 0.95


def test_the_face_is_followed_with_one_id_until_it_leaves(
    infer: Infer, cycle: list[Rgb], make_frame: Callable[..., Frame]
) -> None:
    """From real to forged the face keeps its id, away nothing is seen, and who comes back has a new id."""
    finder = FaceFinder(Detector(infer))
    ids: list[set[int]] = [set(), set()]
    reported = 0
    for index, rgb in enumerate(cycle):
        faces = finder.find(make_frame(rgb, index, gap=index == 0))
        assert len(faces) <= 1
        truth = demo_truth(index / FPS)
        if truth != "away":
            reported += len(faces)
            ids[index > 20 * FPS] |= {face.id for face in faces}
        elif 20.0 <= index / FPS < 22.0:
            assert faces == []
    whole = sum(demo_truth(index / FPS) != "away" for index in range(len(cycle)))
    assert reported >= 0.95 * whole
    assert ids[0] == {1}
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1920, 1080), (480, 640)])
def test_other_sizes_show_the_face_too(infer: Infer, width: int, height: int) -> None:
    """The portrait scales with the picture."""
    pts, rgb = next(islice(demo_frames(fps=1, width=width, height=height), 3, None))
    assert (pts, rgb.shape) == (3, (height, width, 3))
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    (detection,) = Detector(infer).detect(picture, 640)
    assert detection.box[3] == pytest.approx(0.26 * height, rel=0.2)
