"""Tests of the demo: its phases, its labels, and that the detector finds its face."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Literal

import av
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from streams.faces.detector import Detector, Infer
from streams.faces.finder import FaceFinder
from streams.input.frame import Frame
from streams.synthesis.demo import (
    CYCLE_S,
    FAKE_COLOUR,
    FAKE_START_S,
    LEAVE_END_S,
    REAL_COLOUR,
    RETURN_START_S,
    _astronaut,
    demo_frames,
)

Rgb = NDArray[np.uint8]
FPS = 8  # the rate at which a live stream is sampled
WIDTH, HEIGHT = 640, 360
LABEL_ROWS = HEIGHT // 6


@pytest.fixture(scope="module")
def cycle() -> list[Rgb]:
    """One cycle of the demo at the sample rate."""
    frames = demo_frames(fps=FPS, width=WIDTH, height=HEIGHT)
    return [rgb for _, rgb in islice(frames, round(CYCLE_S * FPS))]


def phase(index: int) -> Literal["real", "fake", "away", "partial"]:
    """Return what a frame of the cycle shows; `partial` while the face crosses the edge of the frame."""
    t = index / FPS % CYCLE_S
    if t < FAKE_START_S or t >= 23.25:
        return "real"
    if t < 18.75:
        return "fake"
    return "away" if LEAVE_END_S <= t < RETURN_START_S else "partial"


def label(rgb: Rgb) -> Literal["real", "fake", "none"]:
    """Return what the label in the corner of a frame states, by its colour."""
    colour = tuple(rgb[15, 15].tolist())
    return "real" if colour == REAL_COLOUR else "fake" if colour == FAKE_COLOUR else "none"


def test_frames_have_the_requested_size_and_never_end() -> None:
    """The default size is 1280 x 720; pts continue after the end of a cycle."""
    frames = list(islice(demo_frames(fps=1), 30))
    assert [pts for pts, _ in frames] == list(range(30))
    assert all(rgb.shape == (720, 1280, 3) and rgb.dtype == np.uint8 for _, rgb in frames)
    assert np.array_equal(frames[0][1], frames[24][1]), "the phases with the real face repeat"


def test_the_demo_is_deterministic() -> None:
    """Two runs give the same frames, and a frame is not modified after it was yielded."""
    first = [rgb for _, rgb in islice(demo_frames(fps=2), 26)]
    for one, (_, other) in zip(first, demo_frames(fps=2), strict=False):
        assert np.array_equal(one, other)


def test_every_phase_lasts_for_seconds(cycle: list[Rgb]) -> None:
    """A cycle shows the real face and the fake for at least 8 s each, and an empty scene for 2 s."""
    labels = [label(rgb) for rgb in cycle]
    assert labels.count("real") >= 8 * FPS
    assert labels.count("fake") >= 8 * FPS
    assert labels.count("none") >= 2 * FPS
    assert labels[0] == "real"


def test_the_label_states_the_phase(cycle: list[Rgb]) -> None:
    """The label is green with the real face, red with the fake, and absent in an empty scene."""
    for index, rgb in enumerate(cycle):
        if phase(index) != "partial":
            assert label(rgb) == {"away": "none"}.get(phase(index), phase(index)), index / FPS


def test_the_fake_differs_from_the_real_face_only_in_the_face(cycle: list[Rgb]) -> None:
    """The fake face repeats the movements of the real one, so the frames differ only in the face."""
    for index in range(2 * FPS, 7 * FPS):
        real, fake = cycle[index].astype(int), cycle[index + round(FAKE_START_S * FPS)]
        rows, columns = np.nonzero(np.abs(real - fake).max(axis=2) > 1)
        below_label = rows > LABEL_ROWS
        assert below_label.sum() > 500, index
        assert np.ptp(rows[below_label]) < 160
        assert np.ptp(columns[below_label]) < 160


def test_the_fake_varies_smoothly_from_frame_to_frame() -> None:
    """The colour difference to the real face changes with every frame, in small steps."""
    start, shift = 13 * 25, 9 * 25
    frames = islice(demo_frames(fps=25, width=WIDTH, height=HEIGHT), start + 10)
    kept = {pts: rgb for pts, rgb in frames if 0 <= pts - start < 10 or 0 <= pts - start + shift < 10}
    tints = [(kept[start + n] - kept[start + n - shift].astype(float))[LABEL_ROWS:].mean() for n in range(10)]
    steps = np.abs(np.diff(tints))
    assert steps.min() > 0
    assert steps.max() < np.abs(tints).max()


def test_the_face_is_detected(infer: Infer, cycle: list[Rgb], make_frame: Callable[..., Frame]) -> None:
    """At least 95 % of the samples with a whole face give exactly one detection."""
    detector = Detector(infer)
    found = [
        len(detector.detect(make_frame(rgb).image, 320)) == 1
        for index, rgb in enumerate(cycle)
        if index % 2 == 0 and phase(index) in ("real", "fake")
    ]
    assert np.mean(found) >= 0.95


def test_the_face_keeps_one_id_until_it_leaves(
    infer: Infer, cycle: list[Rgb], make_frame: Callable[..., Frame]
) -> None:
    """The id does not change from real to fake; the face that returns has a new id."""
    finder = FaceFinder(Detector(infer))
    ids: list[set[int]] = [set(), set()]
    reported = whole = 0
    for index, rgb in enumerate(cycle):
        faces = finder.find(make_frame(rgb, index))
        assert len(faces) <= 1
        if phase(index) in ("real", "fake"):
            whole += 1
            reported += len(faces)
            ids[index > 20 * FPS] |= {face.id for face in faces}
        elif phase(index) == "away":
            assert faces == []
    assert reported >= 0.95 * whole
    assert ids[0] == {1}
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1920, 1080), (480, 640)])
def test_the_face_scales_with_the_frame(infer: Infer, width: int, height: int) -> None:
    """The face is detected at the expected height in frames of other sizes."""
    pts, rgb = next(islice(demo_frames(fps=1, width=width, height=height), 3, None))
    assert (pts, rgb.shape) == (3, (height, width, 3))
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    (detection,) = Detector(infer).detect(image, 640)
    assert detection.box[3] == pytest.approx(0.26 * height, rel=0.2)


def test_portrait_is_that_of_scikit_image() -> None:
    """The file is read directly, without the imports of skimage.io."""
    assert np.array_equal(_astronaut(), skimage.data.astronaut())  # type: ignore[no-untyped-call]
