"""The method that unmask set out to beat, as it was: dlib finds a face in every frame, and for one verdict
the whole clip of 80 crops goes through a ResNeXt-50 and an LSTM of width 2048, in PyTorch.

Its known mistakes are mended here (`train.models.detector`), which changes no cost. The weights are random: the
arithmetic does not depend on them. The same clip can be judged in other ways, for the steps in between.
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

from benchmarks.harness.errors import TooShort
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
# Of the face in the picture; the original's own, 1.3 times the rectangle that dlib finds.
MARGIN = 1.3
UPSAMPLINGS = 1
# Opens the residual branches, which start closed: matrix_products with zero might be cheaper.
BRANCH_GAIN = 0.3

Crops = NDArray[np.uint8]
FaceDecision = Callable[[], object]


def pictures(source: Source, count: int) -> Iterator[av.VideoFrame]:
    """Decode the first pictures of a file.

    Args:
        source: A file.
        count: How many.

    Raises:
        TooShort: It has fewer.
    """
    with av.open(source.address.reveal()) as container:
        found = 0
        for picture in islice(container.decode(video=0), count):
            found += 1
            yield picture
    if found < count:
        raise TooShort(source.spec, found, count)


class HogFaces:
    """Finds faces as the original does, with dlib's HOG detector; needs the extra `bench`."""

    def __init__(self) -> None:
        import dlib

        self._find = dlib.get_frontal_face_detector()

    def crop(self, picture: av.VideoFrame) -> Crops | None:
        """Cut the first face out of a picture.

        Args:
            picture: As decoded.

        Returns:
            uint8 RGB `(112, 112, 3)`; None if there is no face.
        """
        rgb = picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        faces = self._find(rgb, UPSAMPLINGS)
        if not len(faces):
            return None
        face = faces[0]
        box = (float(face.left()), float(face.top()), float(face.width()), float(face.height()))
        return crop_array(rgb, box, size=SIZE, margin=MARGIN)


def whole_clip(crops: Sequence[Crops]) -> Crops:
    """Make a full clip of the crops that there are, repeating them where there are too few.

    Args:
        crops: uint8 RGB `(112, 112, 3)`; none at all stands for grey ones.

    Returns:
        uint8 RGB `(80, 112, 112, 3)`.
    """
    filled = list(crops) or [np.full((SIZE, SIZE, 3), 128, np.uint8)]
    return np.stack([filled[index % len(filled)] for index in range(CLIP)])


@dataclass(frozen=True)
class Network:
    """The original's network in PyTorch, and the same function in other forms."""

    model: ResNeXtLSTM

    @classmethod
    def random(cls) -> Network:
        """Make one with seeded random weights."""
        torch.manual_seed(0)
        model = ResNeXtLSTM(ORIGINAL).eval().requires_grad_(False)
        for name, weight in model.named_parameters():
            if name.endswith("bn3.weight"):
                torch.nn.init.constant_(weight, BRANCH_GAIN)
        return cls(model)

    def eager(self, clip: Crops) -> FaceDecision:
        """Prepare to judge a clip as the original does."""
        return _inferring(self.model, torch.from_numpy(clip)[None])

    def compiled(self, clip: Crops) -> FaceDecision:
        """Prepare to judge a clip with `torch.compile`; compiles, which takes a minute.

        Raises:
            Exception: Whatever stands in the compiler's way, such as a missing C++ compiler.
        """
        with _quiet():
            judge = _inferring(torch.compile(self.model), torch.from_numpy(clip)[None])
            judge()
        return judge

    def new_crop(self, clip: Crops) -> FaceDecision:
        """Prepare to judge with a feature buffer: one new crop, and the features of the other 79 at hand."""
        crop = torch.from_numpy(clip[:1])
        features = torch.rand(1, CLIP, FEATURES)

        def judge() -> object:
            with torch.inference_mode():
                features[:, -1] = self.model.backbone(crop)
                return self.model.head(features)

        return judge

    def bundle(self, folder: Path) -> Bundle:
        """Write it as a bundle that the engines take, its weights in float32.

        Args:
            folder: An empty directory.
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


def _inferring(model: Any, clip: torch.Tensor) -> FaceDecision:
    def judge() -> object:
        with torch.inference_mode():
            return model(clip)

    return judge


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter and compiler warn themselves about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
