"""Per-frame deepfake detectors with torch, as public projects build them.

For each frame MTCNN (facenet-pytorch) finds the faces, the largest is cut out with a third of its size around
it, and a classifier scores this crop: EfficientNet-B4 at 380 px or Xception at 299 px. Settings that decide
the cost are those of the winner of the Deepfake Detection Challenge, among them MTCNN on frames of half the
size. The weights of the classifiers are random, as the cost does not depend on them; those of MTCNN are in
its package.

Source: github.com/selimsef/dfdc_deepfake_challenge, kernel_utils.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.suites.peers.method_run import MethodRun, RunLimits, measure
from streams.input.frame import Frame
from streams.input.source import parse_source

MTCNN_THRESHOLDS = (0.7, 0.8, 0.8)
FRAME_SCALE = 2
MARGIN = 1 / 3
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)
OPSET = 18

# float32 (1, 3, H, W), normalised -> logit
Classify = Callable[[NDArray[np.float32]], float]


@dataclass(frozen=True)
class FrameClassifier:
    """Network that scores one crop.

    Args:
        build: Function that returns it with random weights.
        size: Height and width of its input.
    """

    build: Callable[[], nn.Module]
    size: int


def _efficientnet_b4() -> nn.Module:
    from torchvision.models import efficientnet_b4

    network: nn.Module = efficientnet_b4(weights=None, num_classes=1)
    return network


def _xception() -> nn.Module:
    import timm

    return timm.create_model("legacy_xception", pretrained=False, num_classes=1)


CLASSIFIERS: Mapping[str, FrameClassifier] = MappingProxyType(
    {
        "EfficientNet-B4": FrameClassifier(_efficientnet_b4, 380),
        "Xception": FrameClassifier(_xception, 299),
    }
)


def run_frame_detector(video: str, limits: RunLimits, classifier: str, graph: Path | None) -> MethodRun:
    """Measure a per-frame detector.

    Args:
        video: Video file.
        limits: Limits of the measurement.
        classifier: Key of `CLASSIFIERS`.
        graph: The classifier as an ONNX graph, to run it with onnxruntime; None to run it in eager PyTorch.

    Raises:
        NothingMeasured: The video has too few frames with a face.
        SourceError: The video cannot be read.
    """
    torch.set_num_threads(limits.threads)
    size = CLASSIFIERS[classifier].size
    if graph is None:
        classify, library = _in_torch(classifier), f"torch {torch.__version__}"
    else:
        classify, library = _in_onnxruntime(graph, limits.threads), f"onnxruntime {onnxruntime.__version__}"
    face = LargestFace()

    def give_verdict(frame: Frame) -> bool:
        rgb = frame.image.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        crop = face.crop(rgb, size)
        if crop is None:
            return False
        values = (crop.astype(np.float32) / 255 - MEAN) / STD
        return bool(np.isfinite(classify(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))))

    return measure(parse_source(video), give_verdict, limits, library)


def export_classifiers(folder: Path) -> None:
    """Write each classifier as an ONNX graph, at `graph_path`.

    Args:
        folder: Folder to write into.
    """
    for name, classifier in CLASSIFIERS.items():
        with warnings.catch_warnings():
            # About the exporter's own code.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _network(name),
                (torch.zeros(1, 3, classifier.size, classifier.size),),
                graph_path(folder, name),
                dynamo=True,
                opset_version=OPSET,
                input_names=["crop"],
                output_names=["logit"],
                verbose=False,
            )


def graph_path(folder: Path, classifier: str) -> Path:
    """Return the path of a classifier's ONNX graph in a folder."""
    return folder / f"{classifier}.onnx"


class LargestFace:
    """Face detection with MTCNN in each frame. Needs the extra `bench`."""

    def __init__(self) -> None:
        from facenet_pytorch.models.mtcnn import MTCNN

        self._mtcnn: Any = MTCNN(margin=0, thresholds=list(MTCNN_THRESHOLDS))

    def crop(self, rgb: NDArray[np.uint8], size: int) -> NDArray[np.uint8] | None:
        """Cut out the largest face.

        Args:
            rgb: uint8 RGB `(H, W, 3)`.
            size: Height and width of the crop.

        Returns:
            uint8 RGB `(size, size, 3)`; None if no face was found.
        """
        image = Image.fromarray(rgb)
        boxes, _ = self._mtcnn.detect(image.resize([side // FRAME_SCALE for side in image.size]))
        if boxes is None:
            return None
        left, top, right, bottom = FRAME_SCALE * boxes[0]
        pad_x, pad_y = MARGIN * (right - left), MARGIN * (bottom - top)
        rows = slice(max(0, int(top - pad_y)), int(bottom + pad_y))
        columns = slice(max(0, int(left - pad_x)), int(right + pad_x))
        resized = cv2.resize(rgb[rows, columns], (size, size), interpolation=cv2.INTER_AREA)
        return resized.astype(np.uint8, copy=False)


def _network(classifier: str) -> nn.Module:
    torch.manual_seed(0)
    return CLASSIFIERS[classifier].build().eval().requires_grad_(False)


def _in_torch(classifier: str) -> Classify:
    network = _network(classifier)

    def classify(values: NDArray[np.float32]) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(values)))

    return classify


def _in_onnxruntime(graph: Path, threads: int) -> Classify:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def classify(values: NDArray[np.float32]) -> float:
        (logit,) = session.run(None, {"crop": values})
        return float(logit.reshape(()))

    return classify
