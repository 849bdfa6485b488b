"""Corruptions: the error grows with the severity; size, type and colour order do not change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from train.sampling.corruptions import CORRUPTIONS, corrupt

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def clip() -> NDArray[np.uint8]:
    """Six frames of the astronaut's face, drifting by a pixel a frame."""
    image = np.asarray(astronaut(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    return np.stack([image[40 : 40 + 160, 150 + i : 150 + i + 160] for i in range(6)])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_higher_severity_gives_a_larger_error(name: str, clip: NDArray[np.uint8]) -> None:
    """The error against the clean clip grows with the severity; the input clip is not changed."""
    before = clip.copy()
    errors = []
    for severity in range(1, len(CORRUPTIONS[name].strengths) + 1):
        damaged = corrupt(clip, name, severity)
        assert damaged.shape == clip.shape
        assert damaged.dtype == np.uint8
        errors.append(float(np.mean((damaged.astype(float) - clip) ** 2)))
    assert errors == sorted(errors)
    assert errors[0] > 1
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_gives_the_same_corruption(name: str, clip: NDArray[np.uint8]) -> None:
    """Two runs give the same frames, so two models are measured on the same corruption."""
    np.testing.assert_array_equal(corrupt(clip[:3], name, 2, seed=4), corrupt(clip[:3], name, 2, seed=4))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 33, 47)])
def test_single_frames_and_odd_sizes_keep_their_shape(name: str, shape: tuple[int, int, int]) -> None:
    """A single frame and odd sides, which 4:2:0 video cannot have, keep their shape."""
    frames, height, width = shape
    image = np.asarray(astronaut(), dtype=np.uint8)  # type: ignore[no-untyped-call]
    clip = np.stack([cv2.resize(image, (width, height))] * frames).astype(np.uint8)
    assert corrupt(clip, name, 3).shape == clip.shape


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "gamma"])
def test_colours_stay_in_place(name: str) -> None:
    """A red frame stays red: no corruption swaps RGB for BGR or desaturates colours."""
    red = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    red[..., 0] = 200
    mean = corrupt(red, name, 1).reshape(-1, 3).mean(axis=0)
    assert mean == pytest.approx([200, 0, 0], abs=8)


def test_h264_corruption_depends_on_neighbouring_frames() -> None:
    """The clip is encoded as a video, so the error of a frame depends on its neighbours."""
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), 6, axis=0)
    changing = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    changing[-1] = still[-1]
    assert not np.array_equal(corrupt(still, "h264", 2)[-1], corrupt(changing, "h264", 2)[-1])


REPEATED = """
import cv2
import numpy as np
from train.sampling.corruptions import corrupt

rng = np.random.default_rng(0)
base = cv2.GaussianBlur(rng.integers(0, 256, (180, 180, 3), dtype=np.uint8), (0, 0), 3)
clip = np.stack([np.roll(base, (2 * i, i), (0, 1))[:160, :160] for i in range(16)])
results = set()
for _ in range(12):
    for size in rng.integers(1_000, 3_000_000, 20):
        np.full(int(size), int(rng.integers(256)), np.uint8)
    results.add(corrupt(clip, "h264", 2).tobytes())
print(len(results))
"""


def test_h264_corruption_is_the_same_every_time() -> None:
    """The content of freed memory has no influence; in a process of its own, whose memory is fresh."""
    found = subprocess.run(
        [sys.executable, "-c", REPEATED], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert found.stdout.strip() == "1"


def test_gamma_darkens_and_keeps_the_ends() -> None:
    """Black stays black, white stays white, grey gets darker."""
    ramp = np.array([0, 128, 255], dtype=np.uint8).reshape(1, 1, 3, 1).repeat(3, axis=3)
    found = corrupt(ramp, "gamma", 2)[0, 0, :, 0]
    assert (found[0], found[2]) == (0, 255)
    assert found[1] < 90


def test_unknown_names_severities_and_shapes_are_refused(clip: NDArray[np.uint8]) -> None:
    """An invalid request is an error with the valid choices, not a clean clip."""
    with pytest.raises(ValueError, match="choose one of jpeg"):
        corrupt(clip, "fog", 1)
    for severity in (0, 4):
        with pytest.raises(ValueError, match=r"within 1\.\.3"):
            corrupt(clip, "jpeg", severity)
    with pytest.raises(ValueError, match="uint8"):
        corrupt(clip[0], "jpeg", 1)
    with pytest.raises(ValueError, match="uint8"):
        corrupt(clip.astype(np.float32), "jpeg", 1)
