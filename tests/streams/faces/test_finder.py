"""Tests of following faces, with the real detector on pictures made of a real portrait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.faces.crop import crop_face
from streams.faces.detector import Detection, Detector, Infer
from streams.faces.finder import DetectionSchedule, FaceFinder
from streams.input.frame import Frame

Rgb = NDArray[np.uint8]
MakeFrame = Callable[..., Frame]


class CountingDetector(Detector):
    """The real detector, which also notes the sizes at which it looked, and can be made blind."""

    def __init__(self, infer: Infer) -> None:
        super().__init__(infer)
        self.sides: list[int] = []
        self.blind = False

    def detect(self, picture: av.VideoFrame, long_side: int) -> list[Detection]:
        """Look, or pretend to have seen nothing."""
        self.sides.append(long_side)
        return [] if self.blind else super().detect(picture, long_side)


@pytest.fixture
def detector(infer: Infer) -> CountingDetector:
    """A fresh counting detector."""
    return CountingDetector(infer)


@pytest.fixture(scope="module")
def scene(portrait: Rgb) -> Callable[..., Rgb]:
    """A function that draws portraits, centred at the given points, into a textured room of 640 x 360."""
    room = np.random.default_rng(3).integers(60, 160, (18, 32, 3), dtype=np.uint8)
    room = np.asarray(cv2.resize(room, (640, 360), interpolation=cv2.INTER_CUBIC), np.uint8)
    oval = cv2.ellipse(np.zeros((160, 150), np.uint8), (75, 80), (60, 75), 0, 0, 360, 255, -1)
    mask = (cv2.GaussianBlur(oval, (0, 0), 3) / np.float32(255))[..., None]
    cut = np.asarray(cv2.resize(portrait, (300, 320))[20:180, 75:225], np.float32)

    def draw(*centres: tuple[float, float], mirrored: int = -1) -> Rgb:
        padded = np.pad(room.astype(np.float32), ((200, 200), (200, 200), (0, 0)), mode="edge")
        for number, (x, y) in enumerate(centres):
            left, top = round(x) + 200 - 75, round(y) + 200 - 80
            here = padded[top : top + 160, left : left + 150]
            here += ((cut[:, ::-1] if number == mirrored else cut) - here) * mask
        return padded[200:560, 200:840].round().astype(np.uint8)

    return draw


def centre(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Return the centre of a box."""
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def test_a_moving_face_is_followed_between_detections(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """One id from start to end, every third frame detected, and the box on the face in all of them."""
    finder = FaceFinder(detector)
    offsets = []
    for index in range(24):
        x, y = 120 + 16 * index, 180 + 40 * np.sin(index / 3)
        (face,) = finder.find(make_frame(scene((x, y)), index, gap=index == 0))
        assert face.id == 1
        assert face.detected == (index % 3 == 0)
        offsets.append(np.subtract(centre(face.box), (x, y)))
        assert finder.detect_ms > 0
    assert len(detector.sides) == 8
    # Against its own mean: where in the drawn head the detector puts the face does not matter here.
    wander = np.linalg.norm(offsets - np.mean(offsets, axis=0), axis=1)
    assert wander.max() < 0.1 * 117, wander.round(1)


def test_looks_closely_at_first_then_cheaply_then_closely_now_and_then(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """640 pixels for the first look, 320 while the face is found, 640 again in every fourth as asked."""
    finder = FaceFinder(detector, schedule=DetectionSchedule(every=2, wide_every=4))
    for index in range(16):
        finder.find(make_frame(scene((300, 180)), index))
    assert detector.sides == [640, 320, 320, 320, 640, 320, 320, 320]


def test_a_small_face_gets_the_resolution_it_needs(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """A face too small for the cheap size makes the detector look in between, not miss it."""
    picture = np.asarray(
        cv2.copyMakeBorder(scene((300, 180)), 0, 360, 0, 640, cv2.BORDER_REPLICATE), np.uint8
    )
    finder = FaceFinder(detector)
    for index in range(7):
        assert len(finder.find(make_frame(picture, index))) == 1
    assert detector.sides[0] == 640
    assert all(320 < side < 640 for side in detector.sides[1:])


def test_an_empty_room_holds_no_face(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Without a face nothing is reported and every look is a close one, at the usual cadence."""
    finder = FaceFinder(detector)
    assert all(finder.find(make_frame(scene(), index)) == [] for index in range(7))
    assert detector.sides == [640, 640, 640]


def test_a_missed_face_is_not_reported_but_keeps_its_id(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """The frame in which the detector misses shows no face; a close look in the next one finds the old id."""
    finder = FaceFinder(detector)
    seen = []
    for index in range(9):
        detector.blind = index == 3
        seen.append([face.id for face in finder.find(make_frame(scene((300, 180)), index))])
    assert seen == [[1]] * 3 + [[]] + [[1]] * 5
    assert detector.sides[:3] == [640, 320, 640]


def test_a_face_that_is_gone_is_gone(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """When the face is cut away nothing is reported from that frame on, and who comes later has a new id."""
    finder = FaceFinder(detector)
    for index in range(5):
        assert [face.id for face in finder.find(make_frame(scene((200, 180)), index))] == [1]
    for index in range(5, 9):
        assert finder.find(make_frame(scene(), index)) == []
    later = [finder.find(make_frame(scene((200, 180)), index)) for index in range(9, 13)]
    assert {face.id for faces in later for face in faces} == {2}
    assert len(later[-1]) == 1


def test_a_face_that_leaves_the_picture_is_dropped_on_the_way(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Boxes stay inside the picture while a face slides out of it, and none is left when it is out."""
    finder = FaceFinder(detector)
    for index in range(18):
        x = 420 + 20 * index
        faces = finder.find(make_frame(scene((x, 180)), index))
        for face in faces:
            left, top, width, height = face.box
            assert min(left, top) >= 0
            assert left + width <= 640
            assert top + height <= 360
            assert x < 680
    assert faces == []


def test_a_cut_to_a_close_up_is_a_new_id(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """A much larger face that stands where the small one was, from one picture to the next, starts over."""
    finder = FaceFinder(detector)
    wide = scene((320, 180))
    close = np.asarray(
        cv2.resize(wide[90:270, 160:480], (640, 360), interpolation=cv2.INTER_LINEAR), np.uint8
    )
    seen = [finder.find(make_frame(wide if index < 5 else close, index)) for index in range(10)]
    assert [[face.id for face in faces] for faces in seen] == [[1]] * 5 + [[2]] * 5


def test_a_cut_between_real_faces_at_the_same_place_is_a_new_id(
    infer: Infer, real_videos: list[Path], make_frame: MakeFrame
) -> None:
    """Real people, framed alike and of one size, cut from one to the next, never share an id."""
    people = []
    for path in real_videos:
        if path.name.startswith("original"):
            with av.open(str(path)) as container:
                picture = next(container.decode(video=0))
            box = Detector(infer).detect(picture, 640)[0].box
            people.append(crop_face(picture, box, size=360, margin=2.5))
    assert len(people) > 1
    finder = FaceFinder(Detector(infer))
    cuts = [person for person in (*people, *people) for _ in range(4)]
    seen = [finder.find(make_frame(picture, index)) for index, picture in enumerate(cuts)]
    assert [len(faces) for faces in seen] == [1] * len(cuts)
    assert [faces[0].id for faces in seen] == [1 + index // 4 for index in range(len(cuts))]


def test_a_gap_makes_the_detector_look(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """After a gap no position is taken on trust, and a face that is no longer there is not reported."""
    finder = FaceFinder(detector)
    for index in range(2):
        finder.find(make_frame(scene((150, 180)), index))
    (face,) = finder.find(make_frame(scene((500, 180)), 40, gap=True))
    assert face.detected
    assert face.id == 2
    assert centre(face.box)[0] == pytest.approx(500, abs=20)


def test_a_change_of_picture_size_starts_over(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Nothing is carried over when the source changes its resolution and shape."""
    finder = FaceFinder(detector)
    finder.find(make_frame(scene((300, 180))))
    narrower = np.ascontiguousarray(scene((300, 180))[:, 150:450])
    (face,) = finder.find(make_frame(narrower, 1))
    assert (face.id, face.detected) == (2, True)


@pytest.mark.parametrize("speed", [8, 15, 30])
def test_crossing_faces_are_never_swapped(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame, speed: int
) -> None:
    """Two faces pass, one in front of the other: an id seen on one of them never shows up on the other."""
    finder = FaceFinder(detector)
    owner: dict[int, str] = {}
    for index in range(460 // speed):
        front, behind = 90 + speed * index, 550 - speed * index
        faces = finder.find(make_frame(scene((behind, 185), (front, 175), mirrored=0), index))
        for face in faces:
            x, _ = centre(face.box)
            if abs(front - behind) > 60:
                nearest = "front" if abs(x - front) < abs(x - behind) else "behind"
                assert owner.setdefault(face.id, nearest) == nearest, (index, face)
    assert len(faces) == 2
    assert {owner[face.id] for face in faces} == {"front", "behind"}


@pytest.mark.parametrize(
    "values", [{"every": 0}, {"narrow_side": 640, "wide_side": 320}, {"wide_every": 0}, {"min_height": 0}]
)
def test_senseless_cadences_are_refused(values: dict[str, int]) -> None:
    """A cadence that could not be kept is an error where it is made."""
    with pytest.raises(ValueError, match="cadence"):
        DetectionSchedule(**values)


def test_real_faces_keep_one_id(infer: Infer, real_videos: list[Path], make_frame: MakeFrame) -> None:
    """In every sample of every real video the one face is found, with one id and its box where it belongs."""
    judge = Detector(infer)
    for path in real_videos:
        finder = FaceFinder(Detector(infer))
        distances = []
        with av.open(str(path)) as container:
            for index, picture in enumerate(container.decode(video=0)):
                if index % 3 or index > 120:
                    continue
                (face,) = finder.find(make_frame(picture.to_ndarray(format="rgb24"), index))
                assert face.id == 1, path.name
                if not face.detected and index % 4 == 0:
                    box = judge.detect(picture, 640)[0].box
                    distances.append(np.linalg.norm(np.subtract(centre(face.box), centre(box))) / box[3])
        assert np.mean(distances) < 0.05, path.name
