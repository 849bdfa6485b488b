"""Clips of face crops for the gates and the rounding: noise, a moving portrait, and the user's own crops."""

from __future__ import annotations

import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from export.errors import CropsUnreadable
from streams.faces.crop import crop_array
from train.data.shards import RESIDUALS_SUFFIX

Clips = NDArray[np.uint8]
"""Face crops, uint8 RGB `(K, T, H, W, 3)`."""

SUFFIXES = {".jpg", ".jpeg", ".png"}
# Face box in the portrait that scikit-image ships, from the face detector: x, y, width, height.
PORTRAIT_BOX = (182.0, 58.0, 88.0, 120.0)

_NUMBER_AT_THE_END = re.compile(r"[._-]?\d+\.\w+$")


def noise_clips(count: int, frames: int, size: int, rng: np.random.Generator) -> Clips:
    """Make clips of white noise, which is unlike any face.

    Args:
        count: Number of clips, K.
        frames: Crops per clip, T.
        size: Height and width of the crops.
        rng: Random generator of the noise.

    Returns:
        The clips, uint8 RGB `(K, T, H, W, 3)`.
    """
    return rng.integers(0, 256, (count, frames, size, size, 3), dtype=np.uint8)


def portrait_clips(count: int, frames: int, size: int, margin: float, rng: np.random.Generator) -> Clips:
    """Make clips of a real face that moves a little, each clip with another brightness.

    Args:
        count: Number of clips, K.
        frames: Crops per clip, T.
        size: Height and width of the crops.
        margin: Side of the crop divided by the height of the face.
        rng: Random generator of movement and light.

    Returns:
        The clips, uint8 RGB `(K, T, H, W, 3)`.
    """
    portrait = np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    x, y, width, height = PORTRAIT_BOX
    clips = np.empty((count, frames, size, size, 3), np.uint8)
    for clip in clips:
        light, zoom = rng.uniform(0.6, 1.3), rng.uniform(0.9, 1.2)
        lit = np.clip(portrait * light, 0, 255).astype(np.uint8)
        path = np.cumsum(rng.normal(0, 0.02 * height, (frames, 2)), axis=0)
        for crop, (dx, dy) in zip(clip, path, strict=True):
            box = (x + dx, y + dy, width, height)
            crop_array(lit, box, size=size, margin=margin * zoom, out=crop)
    return clips


def read_clips(path: Path, frames: int, size: int, max_clips: int) -> Clips:
    """Read clips of face crops, scaled to the input size of the model.

    Args:
        path: A folder or tar file of images, or a folder of tar files. Images of a folder whose names differ
            only in the number at the end (`a/00.jpg`, `a/01.jpg`; `a.00.jpg`) are one clip, in the order of
            their names. Single images are joined to clips in the order of their names.
        frames: Crops per clip, T; longer clips are cut after T crops, shorter ones are skipped.
        size: Height and width of the crops.
        max_clips: Limit of the number of clips, which are spread evenly over those found.

    Returns:
        The clips, uint8 RGB `(K, T, H, W, 3)`.

    Raises:
        CropsUnreadable: There is no clip of this length, or an image cannot be read.
    """
    files, chosen = _chosen(path, frames, max_clips)
    return np.stack([[_decode(path, name, files[name](), size) for name in names] for names in chosen])


def read_residuals(path: Path, frames: int, max_clips: int) -> NDArray[np.float32] | None:
    """Read the temporal residuals of the clips that `read_clips` returns.

    Args:
        path: As for `read_clips`.
        frames: As for `read_clips`.
        max_clips: As for `read_clips`.

    Returns:
        float32 `(K, T, NUM_RESIDUALS)`; None if a clip has none.

    Raises:
        CropsUnreadable: There is no clip of this length.
    """
    files, chosen = _chosen(path, frames, max_clips)
    names = [f"{_NUMBER_AT_THE_END.sub('', clip[0])}.{RESIDUALS_SUFFIX}" for clip in chosen]
    if not all(name in files for name in names):
        return None
    return np.stack([np.load(io.BytesIO(files[name]()), allow_pickle=False)[:frames] for name in names])


def _chosen(
    path: Path, frames: int, max_clips: int
) -> tuple[dict[str, Callable[[], bytes]], list[list[str]]]:
    """Return the files that were found, and the names of the images of each clip to use."""
    if not path.exists():
        raise CropsUnreadable(path, "no such file or folder")
    files = _folder(path) if path.is_dir() else _tar(path)
    images = [name for name in files if not name.endswith(RESIDUALS_SUFFIX)]
    by_clip: dict[str, list[str]] = defaultdict(list)
    for name in sorted(images):
        by_clip[_clip_of(name)].append(name)
    singles = [names[0] for names in by_clip.values() if len(names) == 1]
    clips = [names[:frames] for names in by_clip.values() if len(names) >= max(frames, 2)]
    clips += [singles[i : i + frames] for i in range(0, len(singles) - frames + 1, frames)]
    if not clips:
        raise CropsUnreadable(path, f"contains {len(images)} images, but no clip of {frames}")
    return files, [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, max_clips).round().astype(int))]


def _folder(path: Path) -> dict[str, Callable[[], bytes]]:
    files: dict[str, Callable[[], bytes]] = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.suffix.lower() in SUFFIXES:
            files[name] = file.read_bytes
        elif file.suffix.lower() == ".tar":
            files |= {f"{name}/{member}": read for member, read in _tar(file).items()}
    return files


def _tar(path: Path) -> dict[str, Callable[[], bytes]]:
    try:
        with tarfile.open(path) as tar:
            members = [m for m in tar if m.isfile() and _is_used(m.name)]
    except (tarfile.TarError, OSError) as error:
        raise CropsUnreadable(path, "is not a readable tar file") from error
    # Only the positions are kept, so that only the chosen images are read.
    return {m.name: partial(_slice, path, m.offset_data, m.size) for m in members}


def _is_used(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES or name.endswith(RESIDUALS_SUFFIX)


def _slice(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _clip_of(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{_NUMBER_AT_THE_END.sub('', file)}"


def _decode(path: Path, name: str, content: bytes, size: int) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise CropsUnreadable(path, f"{name} is not a readable image")
    shrinks = min(image.shape[:2]) > size
    scaled = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB), np.uint8)
