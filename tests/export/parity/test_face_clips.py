"""Clips for the gates and the rounding: reading the user's crops, noise and a portrait."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import CropsUnreadable
from export.parity.face_clips import noise_clips, portrait_clips, read_clips, read_residuals
from streams.features.temporal_residuals import NUM_RESIDUALS


def write_image(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.zeros((40, 40, 3), np.uint8)
    bgr[..., 2] = red
    assert cv2.imwrite(str(path), bgr)


def reds(path: Path, frames: int, max_clips: int = 99) -> list[list[int]]:
    """Return the red value of each frame of each clip, which identifies it in these tests."""
    clips = read_clips(path, frames, 16, max_clips)
    assert clips.dtype == np.uint8
    assert clips.shape[1:] == (frames, 16, 16, 3)
    assert clips[..., 1:].max() == 0
    return [[int(frame[8, 8, 0]) for frame in clip] for clip in clips]


def test_subfolders_are_clips_in_the_order_of_names(tmp_path: Path) -> None:
    """Crops are RGB, in the order of names; clips that are too short are skipped."""
    for i in range(6):
        write_image(tmp_path / f"a/{i:02}.png", 10 + i)
        write_image(tmp_path / f"b/{i:02}.png", 100 + i)
    for i in range(3):
        write_image(tmp_path / f"c/{i:02}.png", 200)
    assert reds(tmp_path, 4) == [[10, 11, 12, 13], [100, 101, 102, 103]]


def test_tars_of_dotted_names_are_clips(tmp_path: Path) -> None:
    """The tar files of `unmask train prepare` are read directly, alone or in a folder."""
    for clip in range(2):
        for i in range(3):
            write_image(tmp_path / f"images/x_{clip}.{i:02}.png", 50 * clip + i)
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "train-000.tar", "w") as tar:
        for file in sorted((tmp_path / "images").iterdir()):
            tar.add(file, file.name)
    assert reds(shards / "train-000.tar", 3) == [[0, 1, 2], [50, 51, 52]]
    assert reds(shards, 3) == [[0, 1, 2], [50, 51, 52]]


def test_single_images_are_joined_to_clips(tmp_path: Path) -> None:
    """Images without a number are joined in the order of their names."""
    for i, name in enumerate(["ant", "bee", "cat", "dog", "eel"]):
        write_image(tmp_path / f"{name}.png", 10 * i)
    assert reds(tmp_path, 2) == [[0, 10], [20, 30]]


def test_a_limit_spreads_over_all_clips(tmp_path: Path) -> None:
    """Sorted names put labels next to each other, so the first few would all have one label."""
    for clip in range(9):
        for i in range(2):
            write_image(tmp_path / f"{chr(97 + clip)}/{i}.png", 10 * clip)
    assert [clip[0] for clip in reds(tmp_path, 2, max_clips=3)] == [0, 40, 80]


def test_unreadable_crops_are_an_error_of_one_line(tmp_path: Path) -> None:
    """A missing path, a folder without clips, a broken image and a broken tar file."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/0.jpg").write_bytes(b"no image")
    (tmp_path / "broken/1.jpg").write_bytes(b"no image")
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    for name, words in {
        "absent": "no such file",
        "empty": "no clip of 2",
        "broken": "0.jpg is not a readable image",
        "bad.tar": "not a readable tar file",
    }.items():
        with pytest.raises(CropsUnreadable, match=words) as caught:
            read_clips(tmp_path / name, 2, 16, 9)
        assert "\n" not in str(caught.value)


def test_generated_clips_are_repeatable() -> None:
    """The same seed gives the same clips, so the figures in a manifest can be repeated."""
    clips = [
        (noise_clips(2, 3, 16, rng), portrait_clips(2, 3, 16, 1.3, rng))
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    for made, again in zip(*clips, strict=True):
        assert made.shape == (2, 3, 16, 16, 3)
        np.testing.assert_array_equal(made, again)


def test_the_portrait_moves_and_fills_the_crop() -> None:
    """Frames differ, and the centre of the crop shows skin."""
    (clip,) = portrait_clips(1, 8, 64, 1.3, np.random.default_rng(0))
    assert len({frame.tobytes() for frame in clip}) > 4
    red, green, blue = clip[:, 28:36, 28:36].reshape(-1, 3).mean(0)
    assert red > green > blue


def test_residuals_are_those_of_the_chosen_clips(tmp_path: Path) -> None:
    """They are read beside the crops of the same clips; a set in which one clip has none gives None."""
    clips = {f"clip_{i}": clip_of(i) for i in range(5)}
    for stored in (clips, dict(list(clips.items())[1:])):
        folder = tmp_path / str(len(stored))
        folder.mkdir()
        with tarfile.open(folder / "train-000.tar", "w") as tar:
            for name in clips:
                for index in range(4):
                    add(tar, f"{name}.{index:02}.jpg", jpeg(0))
                if name in stored:
                    content = io.BytesIO()
                    np.save(content, stored[name])
                    add(tar, f"{name}.residuals.npy", content.getvalue())
        found = read_residuals(folder, 3, 2)
        if len(stored) == 5:
            assert found is not None
            np.testing.assert_array_equal(found, np.stack([clip_of(0)[:3], clip_of(4)[:3]]))
        else:
            assert found is None


def clip_of(number: int) -> NDArray[np.float32]:
    return np.full((4, NUM_RESIDUALS), number, np.float32)


def jpeg(grey: int) -> bytes:
    return cv2.imencode(".jpg", np.full((16, 16, 3), grey, np.uint8))[1].tobytes()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
