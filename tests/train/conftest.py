"""Small videos with a face in them, and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

Film = Callable[..., Path]


def portrait_scene(
    index: int, *, face: bool, brightness: float, width: int, height: int
) -> NDArray[np.uint8]:
    """Draw one frame: a grey wall and, if asked for, the astronaut's head, moving by a pixel a frame."""
    scene = np.full((height, width, 3), 110, dtype=np.uint8)
    scene[:, ::8] += np.uint8(6)
    if face:
        portrait = np.asarray(astronaut(), dtype=np.uint8)[0:260, 90:350]  # type: ignore[no-untyped-call]
        side = height - 10
        small = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
        scene[5 : 5 + side, 10 + index : 10 + index + side] = np.clip(small * brightness, 0, 255).astype(
            np.uint8
        )
    return scene


@pytest.fixture(scope="session")
def film() -> Film:
    """Return a function that encodes a small H.264 video: by default 2.4 s at 10 fps with one face in it."""

    def write(
        path: Path,
        *,
        frames: int = 24,
        fps: int = 10,
        face: bool = True,
        brightness: float = 1.0,
        size: tuple[int, int] = (256, 192),
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.options = {"crf": "20", "preset": "ultrafast", "threads": "1"}
            for index in range(frames):
                scene = portrait_scene(index, face=face, brightness=brightness, width=size[0], height=size[1])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write
