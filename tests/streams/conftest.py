"""Fixtures for tests of streams: the detector network, a portrait, frames made of arrays, real videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import av
import numpy as np
import onnxruntime
import pytest
import skimage.data
from numpy.typing import NDArray

from streams.faces.detector import Infer, centerface_model
from streams.input.frame import Frame


@pytest.fixture(scope="session")
def infer() -> Infer:
    """CenterFace in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(centerface_model(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return list(session.run(None, {name: blob}))

    return run


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """Public-domain portrait, RGB uint8 (320, 300, 3), with a face about 120 pixels high."""
    whole = np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(whole[:320, 76:376])


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., Frame]:
    """Function that converts an RGB array to a yuv420p frame of a 10 Hz stream."""

    def make(rgb: NDArray[np.uint8], index: int = 0, *, segment: int = 1) -> Frame:
        image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
        return Frame(
            image=image,
            pts=index,
            time_base=Fraction(1, 10),
            captured=None,
            decode_ms=0.0,
            connection=1,
            segment=segment,
        )

    return make


@pytest.fixture(scope="session")
def real_videos(skip_or_fail: Callable[[str], NoReturn]) -> list[Path]:
    """Videos of one speaking person each, from the data set in UNMASK_DATA."""
    root = os.environ.get("UNMASK_DATA")
    videos = sorted(Path(root, "videos").glob("*.mp4")) if root else []
    if not videos:
        skip_or_fail("no videos: set UNMASK_DATA to the directory of the data set")
    return videos
