"""Changes are reported only beyond the noise of both runs."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.harness.record_comparison import classify_change, compare, differences


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ([10.0, 10.2, 10.1], [10.1, 10.0, 10.3], "noise"),
        ([10.0, 10.2, 10.1], [8.0, 8.1, 8.2], "better"),
        ([10.0, 10.2, 10.1], [12.0, 12.1, 12.2], "worse"),
        # Apart, but by less than the spread of one run.
        ([10.0, 14.0, 12.0], [14.5, 14.6, 14.7], "noise"),
        # The medians are far apart, but one repetition overlaps.
        ([10.0, 10.0, 10.0], [9.9, 20.0, 20.0], "noise"),
        ([10.0], [12.0, 12.0], "unknown"),
        ([10.0], [10.0], "noise"),
    ],
)
def test_noise(old: list[float], new: list[float], change: str) -> None:
    """Overlapping repetitions, or a step within their spread, are noise; a single run is unknown."""
    assert classify_change(old, new, lower_is_better=True)[1] == change


def test_higher_can_be_better() -> None:
    """A higher rate is an improvement."""
    assert classify_change([1.0, 1.1], [2.0, 2.1], lower_is_better=False)[1] == "better"


def figure(unit: str = "ms", better: str = "lower", **repeats: list[float]) -> dict[str, Any]:
    return {"unit": unit, "better": better, "repeats": repeats}


def test_only_common_figures_are_compared() -> None:
    """A figure that the other run lacks, or has in another unit, is skipped."""
    old = {"a": figure(p50=[1.0, 1.0], p99=[2.0, 2.0]), "b": figure("s", value=[1.0, 1.0])}
    new = {"a": figure(p50=[3.0, 3.0]), "b": figure("ms", value=[1.0, 1.0]), "c": figure(value=[1.0])}
    (difference,) = differences(old, new)
    assert (difference.name, difference.before, difference.now) == ("a p50", 1.0, 3.0)
    assert str(difference) == "a p50: 1 -> 3 ms (+200.0%), worse; noise ±0"


def record(figures: dict[str, Any], **settings: object) -> dict[str, Any]:
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "libraries": {"numpy": "2"}},
        "settings": settings,
        "figures": figures,
    }


def test_other_differences_are_listed_first() -> None:
    """Different versions and settings are listed, as they may be the cause of a change."""
    old = record({"a": figure(value=[1.0, 1.0]), "gone": figure(value=[1.0])}, source="demo")
    new = record({"a": figure(value=[1.0, 1.0]), "more": figure(value=[1.0])}, source="x.mp4")
    new["machine"]["libraries"] = {"numpy": "3"}
    assert compare(old, new) == [
        "note: numpy was 2, is 3",
        "note: source was demo, is x.mp4",
        "no longer measured: gone",
        "new: more",
        "1 of 1 figures stayed within the noise",
    ]
