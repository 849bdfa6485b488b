"""Fixtures of the training tests: small videos with and without a face, and a small set of clips."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from rich.console import Console
from skimage.data import astronaut

from runtime.model.bundle import write_manifest
from runtime.model.calibration import Calibration
from runtime.model.manifest import Manifest
from tests.train.tiny_run import TINY_MODEL, TINY_RUN

Film = Callable[..., Path]

BACKBONE = """
<ir_version: 8, opset_import: ["" : 17]>
backbone (uint8[N, 32, 32, 3] crops) => (float[N, 3] features) {
    pixels = Cast <to = 1> (crops)
    features = ReduceMean <axes = [1, 2], keepdims = 0> (pixels)
}
"""
HEAD = """
<ir_version: 8, opset_import: ["" : 17]>
head (float[N, T, 3] features) => (float[N] logit) {
    brightness = ReduceMean <axes = [1, 2], keepdims = 0> (features)
    middle = Constant <value = float {127.5}> ()
    slope = Constant <value = float {-0.0784313725}> ()
    offset = Sub (brightness, middle)
    logit = Mul (offset, slope)
}
"""


def portrait_scene(
    index: int, *, face: bool, brightness: float, width: int, height: int
) -> NDArray[np.uint8]:
    """Return one frame: a grey wall, optionally with a face that moves by one pixel per frame."""
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
        still: bool = False,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.options = {"crf": "20", "preset": "ultrafast", "threads": "1"}
            for index in range(frames):
                shift = 0 if still else index
                scene = portrait_scene(shift, face=face, brightness=brightness, width=size[0], height=size[1])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def dark_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle whose model scores brightness: a logit of 10 for black and -10 for white."""
    folder = tmp_path_factory.mktemp("bundle") / "dark"
    folder.mkdir()
    for name, graph in (("backbone.onnx", BACKBONE), ("head.onnx", HEAD)):
        onnx.save(onnx.parser.parse_model(graph), folder / name)
    write_manifest(
        folder,
        Manifest(
            name="dark",
            input_size=32,
            crop_margin=1.3,
            sample_hz=10,
            window=8,
            min_frames=4,
            feature_dim=3,
            calibration=Calibration(scale=2.0, offset=0.5, threshold_fake=0.7, threshold_real=0.3),
        ),
    )
    return folder


def write_clip(
    tar: tarfile.TarFile, clip: str, fake: bool, group: str, frames: Sequence[NDArray[np.uint8]], form: str
) -> str:
    """Write the frames of a clip, BGR, to a shard as `.jpg` or `.png`; return its line of the index."""
    for index, frame in enumerate(frames):
        data = cv2.imencode(form, frame)[1].tobytes()
        # Readers expect this name and detect the image format from the content.
        member = tarfile.TarInfo(f"{clip}/{index:02}.jpg")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return f"000.tar,{clip},{int(fake)},{'swap' if fake else 'original'},{group},{len(frames)}"


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of three pairs of a real and a fake clip; the group `kept-out` is held out."""
    face = np.ascontiguousarray(astronaut()[40:264, 120:344, ::-1])  # type: ignore[no-untyped-call]
    folder = tmp_path_factory.mktemp("data") / "clips"
    folder.mkdir()
    lines = ["shard,clip,fake,method,group,frames"]
    with tarfile.open(folder / "000.tar", "w") as tar:
        for group in ("a", "b", "kept-out"):
            for fake in (False, True):
                clip = f"{'swap' if fake else 'original'}_{group}"
                moved = [np.roll(face, index + 5 * fake, axis=1) for index in range(4)]
                lines.append(write_clip(tar, clip, fake, group, moved, ".jpg"))
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Path:
    """The directory of a finished tiny run on `clips`. Copy it before writing to it."""
    from train.fitting.run import fit

    out = tmp_path_factory.mktemp("runs") / "trained"
    fit([clips], out, model_config=TINY_MODEL, config=TINY_RUN, console=Console(quiet=True))
    return out
