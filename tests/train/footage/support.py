"""Videos and records for tests of the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.footage.labelled import LabelledVideo
from train.footage.video_record import VideoRecord


def labelled(
    name: str, *, fake: bool, data_set: str = "set", group: str = "a", **fields: Any
) -> LabelledVideo:
    """Return a labelled video."""
    return LabelledVideo(
        path=Path(f"{name}.mp4"),
        fake=fake,
        data_set=data_set,
        group=group,
        method=fields.get("method", "swap" if fake else "real"),
        target=fields.get("target", name),
    )


def recorded(p_fake: float | None, **fields: Any) -> VideoRecord:
    """Return the record of a video of one minute."""
    values: dict[str, Any] = {
        "state": "no_face" if p_fake is None else "scored",
        "p_fake": p_fake,
        "seconds": 60.0,
        "alarms": 0,
        "first_alarm_s": None,
        "verdicts": 100,
        "fake": 0,
        "uncertain": 0,
        "reasons": {},
        "luma": 100.0,
        "tone_angle": 30.0,
    }
    return VideoRecord(**{**values, **fields})
