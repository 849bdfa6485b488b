"""Comparison of two records of one benchmark: changes beyond the noise of the repetitions. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Change = Literal["better", "worse", "noise", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Change of one statistic of one figure.

    Args:
        name: Name of the figure, with the statistic unless it is the plain value.
        unit: Unit of both values.
        before: Median of the old repetitions.
        now: Median of the new repetitions.
        noise: Spread of the repetitions of one run; the larger of the two runs.
        change: `better` or `worse` beyond the noise, `noise` within it, `unknown` if a run was not repeated.
    """

    name: str
    unit: str
    before: float
    now: float
    noise: float
    change: Change

    def __str__(self) -> str:
        moved = f" ({self.now / self.before - 1:+.1%})" if self.before else ""
        text = f"{self.name}: {self.before:g} -> {self.now:g} {self.unit}{moved}"
        if self.change == "unknown":
            return f"{text}; not repeated, so it may be noise"
        return f"{text}, {self.change}; noise ±{self.noise:.3g}"


def classify_change(
    old: Sequence[float], new: Sequence[float], *, lower_is_better: bool
) -> tuple[float, Change]:
    """Decide whether a difference between two runs is a change or noise.

    It is a change if the repetitions of the two runs do not overlap, and their medians differ by more than
    the spread of the repetitions of either run.

    Args:
        old: Value of each repetition of the old run.
        new: Value of each repetition of the new run.
        lower_is_better: Whether a lower value is an improvement.

    Returns:
        The noise, and the kind of change.
    """
    if min(len(old), len(new)) < 2:
        return 0.0, "noise" if statistics.median(old) == statistics.median(new) else "unknown"
    noise = max(max(old) - min(old), max(new) - min(new))
    overlap = min(old) <= max(new) and min(new) <= max(old)
    step = statistics.median(new) - statistics.median(old)
    if overlap or abs(step) <= noise:
        return noise, "noise"
    return noise, "better" if (step < 0) == lower_is_better else "worse"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Compare every statistic that both records have.

    Args:
        old: The `figures` of the earlier record.
        new: The `figures` of this one.

    Returns:
        One difference per statistic, in the order of the new record.
    """
    found = []
    for name, figure in new.items():
        before = old.get(name)
        if before is None or before["unit"] != figure["unit"]:
            continue
        for statistic, values in figure["repeats"].items():
            earlier = before["repeats"].get(statistic)
            if not earlier or not values:
                continue
            noise, change = classify_change(earlier, values, lower_is_better=figure["better"] == "lower")
            found.append(
                Difference(
                    name=name if statistic == "value" else f"{name} {statistic}",
                    unit=figure["unit"],
                    before=statistics.median(earlier),
                    now=statistics.median(values),
                    noise=noise,
                    change=change,
                )
            )
    return found


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the changes between two records of the same benchmark.

    Args:
        old: The earlier record.
        new: The later record.

    Returns:
        Lines of text: differences in hardware, versions and settings; changes beyond the noise; the number of
        figures within the noise.
    """
    lines = [f"note: {line}" for line in _circumstances(old, new)]
    found = differences(old["figures"], new["figures"])
    lines += [str(difference) for difference in found if difference.change != "noise"]
    removed = [name for name in old["figures"] if name not in new["figures"]]
    added = [name for name in new["figures"] if name not in old["figures"]]
    lines += [f"no longer measured: {', '.join(removed)}"] if removed else []
    lines += [f"new: {', '.join(added)}"] if added else []
    unchanged = sum(difference.change == "noise" for difference in found)
    return [*lines, f"{unchanged} of {len(found)} figures stayed within the noise"]


def _circumstances(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe differences in hardware, versions and settings, which may be the cause of a change."""
    lines = []
    for key in ("cpu", "instruction_sets", "cores", "memory_gib", "python"):
        lines += _differs(key, old.get("machine", {}).get(key), new["machine"].get(key))
    lines += _differs_within(old.get("machine", {}).get("libraries", {}), new["machine"]["libraries"])
    lines += _differs("model", old.get("model", {}).get("digest"), new.get("model", {}).get("digest"))
    lines += _differs("engine", old.get("engine"), new.get("engine"))
    return lines + _differs_within(old.get("settings", {}), new["settings"])


def _differs_within(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [line for key in {**old, **new} for line in _differs(key, old.get(key), new.get(key))]


def _differs(key: str, old: object, new: object) -> list[str]:
    return [] if old == new else [f"{key} was {old}, is {new}"]
