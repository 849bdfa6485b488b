"""Clip sets whose fakes vary from frame to frame."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from skimage.data import astronaut

from streams.features.temporal_residuals import VERSION
from tests.support.temporal import residuals_of
from tests.train.conftest import write_clip

QUIET = Console(quiet=True)
FRAMES = 8
FRAMES_PER_SAMPLE = 3
HELD_OUT = ("g6", "g7", "g8", "g9")


def write_clips(
    folder: Path, groups: Collection[str], *, frames: int = FRAMES, labels: Collection[bool] = (False, True)
) -> Path:
    """Write a clip set of moving faces; the middle of the fake ones varies in brightness between frames."""
    folder.mkdir()
    portrait = np.asarray(astronaut(), np.uint8)[0:224, 110:334]  # type: ignore[no-untyped-call]
    face = cv2.resize(portrait, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    disc = np.zeros((64, 64), np.float32)
    cv2.circle(disc, (32, 32), 18, 1.0, -1)
    middle = cv2.GaussianBlur(disc, (0, 0), 3)[..., None]
    lines = ["shard,clip,fake,method,group,frames"]
    with tarfile.open(folder / "000.tar", "w") as tar:
        for number, (group, fake) in enumerate((group, fake) for group in groups for fake in labels):
            rng = np.random.default_rng(number)
            clip = f"{'swap' if fake else 'original'}{group}_0"
            light, drift = rng.uniform(0.7, 1.0) - 0.12 * fake, rng.normal(0, 0.6, 2)
            images = []
            for index in range(frames * FRAMES_PER_SAMPLE):
                x, y = drift * index / FRAMES_PER_SAMPLE
                shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
                moved = cv2.warpAffine(light * face, shift, (64, 64), borderMode=cv2.BORDER_REPLICATE)
                flickering = moved + (rng.uniform(-10, 10) * middle if fake else 0)
                images.append(np.clip(flickering, 0, 255).astype(np.uint8)[..., ::-1])
            samples = images[FRAMES_PER_SAMPLE - 1 :: FRAMES_PER_SAMPLE]
            lines.append(write_clip(tar, clip, fake, group, samples, ".png"))
            stored = io.BytesIO()
            np.save(stored, residuals_of(np.stack(images), every=FRAMES_PER_SAMPLE))
            member = tarfile.TarInfo(f"{clip}.residuals.npy")
            member.size = stored.tell()
            stored.seek(0)
            tar.addfile(member, stored)
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    about = {"spec": {"margin": 1.3}, "notes": [], "residuals": VERSION}
    (folder / "prepared.json").write_text(json.dumps(about))
    return folder
