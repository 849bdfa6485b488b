"""One clip of each video, damaged in each way, all measured alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.model.calibration import Calibration
from train.data.clip_set import Entry, LabelledClip
from train.evaluation.measure import Chance
from train.evaluation.robustness import Damage, measure_robustness, one_clip_each
from train.sampling.corruptions import CORRUPTIONS
from train.scoring.clip_scores import ClipScores


def entry(video: str, number: int, *, fake: bool, frames: int = 16) -> Entry:
    """Make a line of an index."""
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


def test_as_many_reals_as_fakes_one_clip_of_each() -> None:
    """Of three reals and nine fakes, six videos are three and three, each by its middle clip."""
    entries = [
        entry(f"{kind}{i}", n, fake=kind == "f")
        for kind, count in (("r", 3), ("f", 9))
        for i in range(count)
        for n in range(3)
    ]
    chosen = one_clip_each(entries, most=6, min_frames=8, seed=0)
    assert [sum(one.fake is fake for one in chosen) for fake in (False, True)] == [3, 3]
    assert {one.clip[-1] for one in chosen} == {"1"}
    assert chosen == one_clip_each(entries, most=6, min_frames=8, seed=0)
    assert chosen != one_clip_each(entries, most=6, min_frames=8, seed=2)


def test_clips_that_are_too_short_are_passed_over_unless_all_are() -> None:
    """A still is measured only in a set of stills."""
    mixed = [
        entry("a", 0, fake=True, frames=3),
        entry("a", 1, fake=True),
        entry("b", 0, fake=False, frames=3),
    ]
    assert [one.clip for one in one_clip_each(mixed, most=10, min_frames=8, seed=0)] == ["a_1"]
    stills = [entry("a", 0, fake=True, frames=1), entry("b", 0, fake=False, frames=1)]
    assert len(one_clip_each(stills, most=10, min_frames=8, seed=0)) == 2


def test_every_kind_and_strength_is_a_line() -> None:
    """The clean line comes first; each damage is really done to the frames that are scored."""
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

    def score(title: str, damage: Damage | None) -> Sequence[ClipScores]:
        found = []
        for clip in clips:
            given = clip.frames if damage is None else damage(clip)
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
                    windows=(float(clip.fake),),
                    network=(float(clip.fake),),
                    short=(),
                    frames=(),
                )
            )
        return found

    lines = measure_robustness(score, Calibration(), Chance(replicates=10))
    kinds = sum(len(corruption.strengths) for corruption in CORRUPTIONS.values())
    assert len(lines) == 1 + kinds
    assert lines[0]["corruption"] == "none"
    assert lines[1]["strength"] == "quality 70"
    assert all(line["auc"].value == 1.0 for line in lines)
    assert seen[:2] == [0.0, 0.0]
    assert min(seen[2:]) > 0
