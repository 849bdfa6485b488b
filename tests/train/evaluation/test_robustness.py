"""One clip per video, with each corruption, measured in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.model.calibration import Calibration
from train.data.clip_set import Entry, LabelledClip
from train.evaluation.robustness import measure_robustness, one_clip_per_video
from train.sampling.corruptions import CORRUPTIONS
from train.scoring.bootstrap import BootstrapConfig
from train.scoring.clip_scores import ClipScores, Transform


def entry(video: str, number: int, *, fake: bool, frames: int = 16) -> Entry:
    """Return an index entry."""
    return Entry(
        shard="a.tar",
        clip=f"{video}_{number}",
        video=video,
        fake=fake,
        method="swap",
        group=video,
        split="test",
        frames=frames,
        height=90,
        sample_hz=8,
    )


def test_as_many_real_videos_as_fake_ones_with_one_clip_per_video() -> None:
    """Six videos of three real and nine fake ones are three and three, each with its middle clip."""
    entries = [
        entry(f"{kind}{i}", n, fake=kind == "f")
        for kind, count in (("r", 3), ("f", 9))
        for i in range(count)
        for n in range(3)
    ]
    chosen = one_clip_per_video(entries, max_videos=6, min_frames=8, seed=0)
    assert [sum(one.fake is fake for one in chosen) for fake in (False, True)] == [3, 3]
    assert {one.clip[-1] for one in chosen} == {"1"}
    assert chosen == one_clip_per_video(entries, max_videos=6, min_frames=8, seed=0)
    assert chosen != one_clip_per_video(entries, max_videos=6, min_frames=8, seed=2)


def test_short_clips_are_left_out_unless_all_are_short() -> None:
    """A single crop is used only in a set of single crops."""
    mixed = [
        entry("a", 0, fake=True, frames=3),
        entry("a", 1, fake=True),
        entry("b", 0, fake=False, frames=3),
    ]
    assert [one.clip for one in one_clip_per_video(mixed, max_videos=10, min_frames=8, seed=0)] == ["a_1"]
    stills = [entry("a", 0, fake=True, frames=1), entry("b", 0, fake=False, frames=1)]
    assert len(one_clip_per_video(stills, max_videos=10, min_frames=8, seed=0)) == 2


def test_every_corruption_and_severity_is_a_row() -> None:
    """The clean row comes first; each corruption changes the frames that are scored."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 160, 160, 3), dtype=np.uint8)
    clips = [
        LabelledClip(
            clip=f"{name}_0",
            video=name,
            fake=fake,
            method="x",
            group=name,
            height=9,
            margin=1.3,
            frames=frames,
        )
        for name, fake in (("a", False), ("b", True))
    ]
    seen: list[float] = []

    def score(title: str, transform: Transform | None) -> Sequence[ClipScores]:
        found = []
        for clip in clips:
            given = clip.frames if transform is None else transform(clip)
            seen.append(float(np.abs(given.astype(float) - frames).mean()))
            found.append(
                ClipScores(
                    clip=clip.clip,
                    video=clip.video,
                    fake=clip.fake,
                    method="x",
                    group=clip.group,
                    height=9,
                    samples=4,
                    scan_logits=(float(clip.fake),),
                    scan_network_logits=(float(clip.fake),),
                    window_logits=(float(clip.fake),),
                    network_logits=(float(clip.fake),),
                    short_window_logits=(),
                    frame_logits=(),
                )
            )
        return found

    rows = measure_robustness(score, Calibration(), BootstrapConfig(replicates=10))
    kinds = sum(len(corruption.strengths) for corruption in CORRUPTIONS.values())
    assert len(rows) == 1 + kinds
    assert rows[0]["corruption"] == "none"
    assert rows[1]["strength"] == "quality 70"
    assert all(row["auc"].value == 1.0 for row in rows)
    assert seen[:2] == [0.0, 0.0]
    assert min(seen[2:]) > 0
