"""The original method, for comparison.

dlib finds a face in every frame, and for one verdict a clip of 80 crops goes through a ResNeXt-50 and an LSTM
of width 2048, in PyTorch. Its known defects are fixed here (`train.models.detector`), which does not change
its cost. The weights are random, as the cost does not depend on them. The same clip can also be scored in
other ways, for the steps between the original and unmask.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from benchmarks.harness.errors import VideoTooShort
from export.onnx_graph.folding import fold_for_inference
from export.onnx_graph.graph import backbone_graph, head_graph
from runtime.model.bundle import Bundle, load_bundle, write_manifest
from runtime.model.manifest import BACKBONE_FILE, HEAD_FILE, Manifest
from streams.faces.crop import crop_array
from streams.input.source import Source
from train.models.config import ORIGINAL
from train.models.detector import FEATURES, ResNeXtLSTM

CLIP = ORIGINAL.window
SIZE = ORIGINAL.input_size
# Side of the crop over the height of the rectangle that dlib finds, as in the original.
MARGIN = 1.3
UPSAMPLINGS = 1
# Scale of the residual branches, which are initialised to zero: multiplying zeros might be cheaper.
BRANCH_GAIN = 0.3

Crops = NDArray[np.uint8]
ScoreClip = Callable[[], object]


def first_frames(source: Source, count: int) -> Iterator[av.VideoFrame]:
    """Decode the first frames of a file.

    Args:
        source: A file.
        count: Number of frames.

    Raises:
        VideoTooShort: The file has fewer frames.
    """
    with av.open(source.address.reveal()) as container:
        decoded = 0
        for frame in islice(container.decode(video=0), count):
            decoded += 1
            yield frame
    if decoded < count:
        raise VideoTooShort(source.spec, decoded, count)


class HogFaces:
    """Face detection of the original: dlib's HOG detector. Needs the extra `bench`."""

    def __init__(self) -> None:
        import dlib

        self._detect = dlib.get_frontal_face_detector()

    def crop(self, frame: av.VideoFrame) -> Crops | None:
        """Cut the first face out of a frame.

        Args:
            frame: The decoded frame.

        Returns:
            uint8 RGB `(112, 112, 3)`; None if no face was detected.
        """
        rgb = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        faces = self._detect(rgb, UPSAMPLINGS)
        if not len(faces):
            return None
        face = faces[0]
        box = (float(face.left()), float(face.top()), float(face.width()), float(face.height()))
        return crop_array(rgb, box, size=SIZE, margin=MARGIN)


def whole_clip(crops: Sequence[Crops]) -> Crops:
    """Return a full clip, repeating the crops if there are too few.

    Args:
        crops: uint8 RGB `(112, 112, 3)`; with no crops the clip is grey.

    Returns:
        uint8 RGB `(80, 112, 112, 3)`.
    """
    filled = list(crops) or [np.full((SIZE, SIZE, 3), 128, np.uint8)]
    return np.stack([filled[index % len(filled)] for index in range(CLIP)])


@dataclass(frozen=True)
class OriginalNetwork:
    """Network of the original in PyTorch, and the same function in other forms."""

    model: ResNeXtLSTM

    @classmethod
    def random(cls) -> OriginalNetwork:
        """Return a network with seeded random weights."""
        torch.manual_seed(0)
        model = ResNeXtLSTM(ORIGINAL).eval().requires_grad_(False)
        for name, weight in model.named_parameters():
            if name.endswith("bn3.weight"):
                torch.nn.init.constant_(weight, BRANCH_GAIN)
        return cls(model)

    def eager(self, clip: Crops) -> ScoreClip:
        """Return a function that scores a clip as the original does."""
        return _inferring(self.model, torch.from_numpy(clip)[None])

    def compiled(self, clip: Crops) -> ScoreClip:
        """Return a function that scores a clip with `torch.compile`; compiling takes a minute.

        Raises:
            Exception: Any error of the compiler, such as a missing C++ compiler.
        """
        with _quiet():
            score = _inferring(torch.compile(self.model), torch.from_numpy(clip)[None])
            score()
        return score

    def new_crop(self, clip: Crops) -> ScoreClip:
        """Return a function that scores one new crop with the buffered features of the other 79."""
        crop = torch.from_numpy(clip[:1])
        features = torch.rand(1, CLIP, FEATURES)

        def score() -> object:
            with torch.inference_mode():
                features[:, -1] = self.model.backbone(crop)
                return self.model.head(features)

        return score

    def bundle(self, folder: Path) -> Bundle:
        """Write the network as a bundle for the engines, with float32 weights.

        Args:
            folder: Empty directory to write.
        """
        with _quiet():
            backbone = fold_for_inference(
                self.model.backbone, torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
            )
            onnx.save(backbone_graph(backbone, SIZE, {}), folder / BACKBONE_FILE)
            onnx.save(head_graph(self.model.head, FEATURES, {}), folder / HEAD_FILE)
        manifest = Manifest(
            name="original",
            input_size=SIZE,
            crop_margin=MARGIN,
            sample_hz=ORIGINAL.sample_hz,
            window=CLIP,
            min_frames=ORIGINAL.min_frames,
        )
        write_manifest(folder, manifest)
        return load_bundle(folder)


def _inferring(model: Any, clip: torch.Tensor) -> ScoreClip:
    def score() -> object:
        with torch.inference_mode():
            return model(clip)

    return score


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings that torch's exporter and compiler raise about their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
