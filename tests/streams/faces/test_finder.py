"""Tests of face tracking, with the real detector on images composed from a portrait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streams.faces.crop import crop_face
from streams.faces.detector import Detection, Detector, Infer
from streams.faces.finder import DetectionSchedule, FaceFinder
from streams.faces.reduced_frame import ReducedFrame
from streams.input.frame import Frame

Rgb = NDArray[np.uint8]
MakeFrame = Callable[..., Frame]


class CountingDetector(Detector):
    """The real detector, which records its input sizes and can be made to miss."""

    def __init__(self, infer: Infer) -> None:
        super().__init__(infer)
        self.sides: list[int] = []
        self.blind = False

    def detect(self, image: av.VideoFrame | ReducedFrame, long_side: int) -> list[Detection]:
        """Detect faces, or return none while `blind` is set."""
        self.sides.append(long_side)
        return [] if self.blind else super().detect(image, long_side)


@pytest.fixture
def detector(infer: Infer) -> CountingDetector:
    """A counting detector for one test."""
    return CountingDetector(infer)


@pytest.fixture(scope="module")
def scene(portrait: Rgb) -> Callable[..., Rgb]:
    """Return a function that draws portraits at the given centres on a textured background, 640 x 360."""
    background = np.random.default_rng(3).integers(60, 160, (18, 32, 3), dtype=np.uint8)
    background = np.asarray(cv2.resize(background, (640, 360), interpolation=cv2.INTER_CUBIC), np.uint8)
    oval = cv2.ellipse(np.zeros((160, 150), np.uint8), (75, 80), (60, 75), 0, 0, 360, 255, -1)
    mask = (cv2.GaussianBlur(oval, (0, 0), 3) / np.float32(255))[..., None]
    cut = np.asarray(cv2.resize(portrait, (300, 320))[20:180, 75:225], np.float32)

    def draw(*centres: tuple[float, float], mirrored: int = -1) -> Rgb:
        padded = np.pad(background.astype(np.float32), ((200, 200), (200, 200), (0, 0)), mode="edge")
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
    """The id is constant, the detector runs on every third frame, and the box stays on the face."""
    finder = FaceFinder(detector)
    offsets = []
    for index in range(24):
        x, y = 120 + 16 * index, 180 + 40 * np.sin(index / 3)
        (face,) = finder.find(make_frame(scene((x, y)), index))
        assert face.id == 1
        assert face.detected == (index % 3 == 0)
        offsets.append(np.subtract(centre(face.box), (x, y)))
    assert len(detector.sides) == 8
    # Relative to the mean offset: the position of the detected box in the drawn head does not matter here.
    wander = np.linalg.norm(offsets - np.mean(offsets, axis=0), axis=1)
    assert wander.max() < 0.1 * 117, wander.round(1)


def test_late_frames_are_searched_less_often(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Every eighth late frame is searched; the first frame, and one in which a face is lost, at once."""
    finder = FaceFinder(detector)
    searches = []
    for index in range(19):
        image = scene() if index == 18 else scene((300, 180))
        finder.find(replace(make_frame(image, index), late=True))
        searches.append(len(detector.sides))
    assert searches == [1] * 8 + [2] * 8 + [3] * 2 + [4]


def test_streams_with_other_phases_are_searched_at_other_times(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Each detects at once and then as often as the others, in other frames; so are the large searches."""
    detected: list[list[int]] = []
    large: list[list[int]] = []
    for phase in range(3):
        finder = FaceFinder(detector, schedule=DetectionSchedule(large_every=3), phase=phase)
        detected.append([])
        large.append([])
        for index in range(20):
            before = len(detector.sides)
            finder.find(make_frame(scene((300, 180)), index))
            if len(detector.sides) > before:
                detected[-1].append(index)
                if detector.sides[-1] == 640:
                    large[-1].append(index)
    assert detected == [list(range(0, 20, 3)), [0, *range(2, 20, 3)], [0, *range(1, 20, 3)]]
    assert large == [[0, 9, 18], [0, 5, 14], [0, 1, 10, 19]]


def test_the_detector_input_size_follows_the_schedule(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """640 pixels in the first detection, 320 while the face is found, 640 in every fourth detection."""
    finder = FaceFinder(detector, schedule=DetectionSchedule(every=2, large_every=4))
    for index in range(16):
        finder.find(make_frame(scene((300, 180)), index))
    assert detector.sides == [640, 320, 320, 320, 640, 320, 320, 320]


def test_a_small_face_gets_a_larger_detector_input(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """A face too small for 320 pixels is detected at a size between 320 and 640."""
    image = np.asarray(cv2.copyMakeBorder(scene((300, 180)), 0, 360, 0, 640, cv2.BORDER_REPLICATE), np.uint8)
    finder = FaceFinder(detector)
    for index in range(7):
        assert len(finder.find(make_frame(image, index))) == 1
    assert detector.sides[0] == 640
    assert all(320 < side < 640 for side in detector.sides[1:])


def test_no_face_is_reported_in_an_empty_scene(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Without a face every detection runs at 640 pixels, at the usual interval."""
    finder = FaceFinder(detector)
    assert all(finder.find(make_frame(scene(), index)) == [] for index in range(7))
    assert detector.sides == [640, 640, 640]


def test_a_missed_face_is_not_reported_but_keeps_its_id(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """The frame of the miss reports no face; the detection in the next frame restores the id."""
    finder = FaceFinder(detector)
    seen = []
    for index in range(9):
        detector.blind = index == 3
        seen.append([face.id for face in finder.find(make_frame(scene((300, 180)), index))])
    assert seen == [[1]] * 3 + [[]] + [[1]] * 5
    assert detector.sides[:3] == [640, 320, 640]


def test_a_face_that_returns_gets_a_new_id(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """After a cut to an empty scene no face is reported, and a later face gets a new id."""
    finder = FaceFinder(detector)
    for index in range(5):
        assert [face.id for face in finder.find(make_frame(scene((200, 180)), index))] == [1]
    for index in range(5, 9):
        assert finder.find(make_frame(scene(), index)) == []
    later = [finder.find(make_frame(scene((200, 180)), index)) for index in range(9, 13)]
    assert {face.id for faces in later for face in faces} == {2}
    assert len(later[-1]) == 1


def test_a_face_that_leaves_the_frame_is_no_longer_reported(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """Boxes stay inside the frame while a face moves out of it, and end when it has left."""
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
    """A much larger face at the place of a small one, from one frame to the next, gets a new id."""
    finder = FaceFinder(detector)
    wide = scene((320, 180))
    close = np.asarray(
        cv2.resize(wide[90:270, 160:480], (640, 360), interpolation=cv2.INTER_LINEAR), np.uint8
    )
    seen = [finder.find(make_frame(wide if index < 5 else close, index)) for index in range(10)]
    assert [[face.id for face in faces] for faces in seen] == [[1]] * 5 + [[2]] * 5


def test_a_cut_between_real_faces_gives_a_new_id(
    infer: Infer, real_videos: list[Path], make_frame: MakeFrame
) -> None:
    """Cuts between real people at the same place and of the same size always give a new id."""
    people = []
    for path in real_videos:
        if path.name.startswith("original"):
            with av.open(str(path)) as container:
                image = next(container.decode(video=0))
            box = Detector(infer).detect(image, 640)[0].box
            people.append(crop_face(image, box, size=360, margin=2.5))
    assert len(people) > 1
    finder = FaceFinder(Detector(infer))
    cuts = [person for person in (*people, *people) for _ in range(4)]
    seen = [finder.find(make_frame(image, index)) for index, image in enumerate(cuts)]
    assert [len(faces) for faces in seen] == [1] * len(cuts)
    assert [faces[0].id for faces in seen] == [1 + index // 4 for index in range(len(cuts))]


def test_a_gap_triggers_a_detection(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """After a gap the detector runs at once, and a face that has disappeared is not reported."""
    finder = FaceFinder(detector)
    for index in range(2):
        finder.find(make_frame(scene((150, 180)), index))
    (face,) = finder.find(make_frame(scene((500, 180)), 40, segment=2))
    assert face.detected
    assert face.id == 2
    assert centre(face.box)[0] == pytest.approx(500, abs=20)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_change_of_frame_size_ends_all_tracks(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame, scale: float
) -> None:
    """After a change of resolution, at the same aspect ratio too, the face gets a new id from a detection."""
    finder = FaceFinder(detector)
    finder.find(make_frame(scene((300, 180))))
    resized = np.asarray(cv2.resize(scene((300, 180)), None, fx=scale, fy=scale), np.uint8)
    (face,) = finder.find(make_frame(resized, 1, segment=2))
    assert (face.id, face.detected) == (2, True)
    assert centre(face.box)[0] == pytest.approx(300 * scale, abs=20 * scale)


@pytest.mark.parametrize("speed", [8, 15, 30])
def test_crossing_faces_are_never_swapped(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame, speed: int
) -> None:
    """Of two faces that pass each other, no id moves from one to the other."""
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
    "values",
    [
        {"every": 0},
        {"every_late": 2},
        {"small_side": 640, "large_side": 320},
        {"large_every": 0},
        {"min_face_height": 0},
    ],
)
def test_an_invalid_schedule_raises(values: dict[str, int]) -> None:
    """Values are checked at construction."""
    with pytest.raises(ValueError, match="detection schedule"):
        DetectionSchedule(**values)


def test_real_faces_keep_one_id(infer: Infer, real_videos: list[Path], make_frame: MakeFrame) -> None:
    """In each real video the face has one id throughout, and its followed box is near the detected one."""
    detector = Detector(infer)
    for path in real_videos:
        finder = FaceFinder(Detector(infer))
        distances = []
        with av.open(str(path)) as container:
            for index, image in enumerate(container.decode(video=0)):
                if index % 3 or index > 120:
                    continue
                (face,) = finder.find(make_frame(image.to_ndarray(format="rgb24"), index))
                assert face.id == 1, path.name
                if not face.detected and index % 4 == 0:
                    box = detector.detect(image, 640)[0].box
                    distances.append(np.linalg.norm(np.subtract(centre(face.box), centre(box))) / box[3])
        assert np.mean(distances) < 0.05, path.name


def test_small_face_in_a_large_frame_is_found_and_followed(
    detector: CountingDetector, scene: Callable[..., Rgb], make_frame: MakeFrame
) -> None:
    """A face 90 pixels high in a frame of 3840 x 2160 is found in the first sample and keeps its id."""
    finder = FaceFinder(detector)
    background = np.random.default_rng(5).integers(60, 160, (108, 192, 3), dtype=np.uint8)
    large = np.asarray(cv2.resize(background, (3840, 2160), interpolation=cv2.INTER_CUBIC), np.uint8)
    ids, heights = set(), []
    for index in range(12):
        rgb = large.copy()
        left = 2000 + 6 * index
        rgb[900:1170, left : left + 480] = cv2.resize(
            scene((320, 180)), (480, 270), interpolation=cv2.INTER_AREA
        )
        (face,) = finder.find(make_frame(rgb, index))
        ids.add(face.id)
        heights.append(face.box[3])
    assert len(ids) == 1
    assert heights == pytest.approx([90] * 12, abs=20)
    assert max(detector.sides) == 1280
