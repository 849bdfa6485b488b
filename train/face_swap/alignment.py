"""Alignment of a face by its landmarks, frame by frame and without smoothing, as face-swap software does.

    aligner = FaceAligner(detector)
    for rgb in frames:
        if face := aligner.align(rgb):
            patch = face.cut(rgb, 96)

The aligned square contains the face from the forehead to the chin, upright; the eyes and the corners of the
mouth lie as close to `TEMPLATE` as a rotation, a scale and a shift can bring them.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from streams.faces.crop import Box, crop_array, square
from streams.faces.detector import Detection, Detector

Image = NDArray[np.uint8]
"""RGB uint8 `(H, W, 3)`."""

TEMPLATE = np.array([[0.386, 0.415], [0.612, 0.415], [0.407, 0.676], [0.594, 0.676]])
"""Eyes and corners of the mouth in shares of the aligned square."""
FOUND = (0, 1, 3, 4)
"""The same points among the detector's landmarks. The nose is left out: it moves when the head turns."""
NOSE = 2
SEARCH_SIDE, SEARCH_MARGIN = 224, 2.0
"""Side in pixels of the crop in which a known face is detected again, and its side in face heights."""
FIRST_SIDE = 640


@dataclass(frozen=True, kw_only=True)
class AlignedFace:
    """Position of a face in a frame.

    Attributes:
        to_frame: Float64 `(2, 3)`, from shares of the aligned square to pixels of the frame.
        turn: Shift of the nose to the right in the square, in shares of its side; 0 for a frontal face.
    """

    to_frame: NDArray[np.float64]
    turn: float

    @property
    def side(self) -> float:
        """Return the side of the aligned square in pixels of the frame."""
        return float(np.hypot(*self.to_frame[:, 0]))

    def matrix(self, size: int) -> NDArray[np.float64]:
        """Return the transform from pixels of a square of a size to pixels of the frame, float64 `(2, 3)`."""
        # Pixel centres lie at half a pixel.
        linear = self.to_frame[:, :2] / size
        shift = self.to_frame[:, 2] + linear @ [0.5, 0.5] - 0.5
        return np.column_stack([linear, shift])

    def cut(self, rgb: Image, size: int) -> Image:
        """Return the aligned face, RGB uint8 `(size, size, 3)`; pixels outside the frame repeat its edge."""
        # Reduced in two steps, because a warp to much fewer pixels would alias.
        steps = max(1, round(self.side / size))
        large = cv2.warpAffine(
            rgb,
            self.matrix(size * steps),
            (size * steps, size * steps),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


class FaceAligner:
    """Alignment of the most prominent face of one video; frames are passed in the order of time.

    Args:
        detector: Face detector.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._box: Box | None = None

    def align(self, rgb: Image) -> AlignedFace | None:
        """Return the face in the next frame; None if it is not found."""
        found = self._near(rgb) or self._anywhere(rgb)
        self._box = None if found is None else found.box
        return None if found is None else aligned_face(np.array(found.landmarks))

    def _near(self, rgb: Image) -> Detection | None:
        """Detect the known face again in a crop, in which it always has about the same size."""
        if self._box is None:
            return None
        x, y, side = square(self._box, SEARCH_MARGIN)
        crop = crop_array(rgb, self._box, size=SEARCH_SIDE, margin=SEARCH_MARGIN)
        found = self._detector.detect(av.VideoFrame.from_ndarray(crop, format="rgb24"), SEARCH_SIDE)
        if not found:
            return None
        # The known face is in the middle.
        middle = SEARCH_SIDE / 2
        nearest = min(found, key=lambda face: np.hypot(*(_centre(face.box) - middle)))
        scale = side / SEARCH_SIDE
        left, top, width, height = nearest.box
        return Detection(
            (x + left * scale, y + top * scale, width * scale, height * scale),
            nearest.score,
            landmarks=tuple((x + right * scale, y + down * scale) for right, down in nearest.landmarks),
        )

    def _anywhere(self, rgb: Image) -> Detection | None:
        found = self._detector.detect(av.VideoFrame.from_ndarray(rgb, format="rgb24"), FIRST_SIDE)
        return max(found, key=lambda face: face.score * face.box[3], default=None)


def aligned_face(landmarks: NDArray[np.float64]) -> AlignedFace:
    """Return the alignment of a face with known landmarks.

    Args:
        landmarks: `(5, 2)`: eyes, nose and corners of the mouth, x and y in pixels of the frame.
    """
    # A similarity transform is a complex line; this is its least-squares fit.
    template = TEMPLATE @ [1, 1j]
    points = landmarks[list(FOUND)] @ [1, 1j]
    spread = template - template.mean()
    factor = np.vdot(spread, points) / np.vdot(spread, spread)
    shift = points.mean() - factor * template.mean()
    nose = (landmarks[NOSE] @ [1, 1j] - shift) / factor
    to_frame = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    return AlignedFace(to_frame=to_frame, turn=float(nose.real - 0.5))


def _centre(box: Box) -> NDArray[np.float64]:
    x, y, width, height = box
    return np.array([x + width / 2, y + height / 2])
