"""What changed between two runs of a benchmark, beyond the noise that their repetitions show.

Pure: two records go in, lines for people come out.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Change = Literal["better", "worse", "noise", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Says how one statistic of one figure moved.

    Args:
        name: Of the figure, with the statistic where it is not the plain value.
        unit: Of both values.
        before: The median over the old repetitions.
        now: The median over the new ones.
        noise: How far repetitions of one run lay apart, the worse of the two runs.
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
        told = f"{self.name}: {self.before:g} -> {self.now:g} {self.unit}{moved}"
        if self.change == "unknown":
            return f"{told}; not repeated, so it may be noise"
        return f"{told}, {self.change}; noise ±{self.noise:.3g}"


def judge(old: Sequence[float], new: Sequence[float], *, lower_is_better: bool) -> tuple[float, Change]:
    """Tell a change from noise.

    It is one if the two runs' repetitions do not overlap, and their medians lie further apart than the
    repetitions of either run do.

    Args:
        old: The value in each repetition of the old run.
        new: The same of the new run.
        lower_is_better: Which way is an improvement.

    Returns:
        The noise, and what kind of change it is.
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
    """Hold every statistic that both records have against each other.

    Args:
        old: The `figures` of the earlier record.
        new: The `figures` of this one.

    Returns:
        One difference for each, in the order of the new record.
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
            noise, change = judge(earlier, values, lower_is_better=figure["better"] == "lower")
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
    """Say what changed between two records of the same benchmark.

    Args:
        old: The earlier record.
        new: This one.

    Returns:
        Lines: first what was different about the runs themselves, then each change beyond the noise, last
        how much stayed within it.
    """
    lines = [f"note: {line}" for line in _circumstances(old, new)]
    found = differences(old["figures"], new["figures"])
    lines += [str(difference) for difference in found if difference.change != "noise"]
    gone = [name for name in old["figures"] if name not in new["figures"]]
    added = [name for name in new["figures"] if name not in old["figures"]]
    lines += [f"no longer measured: {', '.join(gone)}"] if gone else []
    lines += [f"new: {', '.join(added)}"] if added else []
    still = sum(difference.change == "noise" for difference in found)
    return [*lines, f"{still} of {len(found)} figures stayed within the noise"]


def _circumstances(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name what else differs, since it may be the cause."""
    told = []
    for key in ("cpu", "cores", "memory_gib", "python"):
        told += _differs(key, old.get("machine", {}).get(key), new["machine"].get(key))
    told += _differs_within(old.get("machine", {}).get("libraries", {}), new["machine"]["libraries"])
    told += _differs("model", old.get("model", {}).get("digest"), new.get("model", {}).get("digest"))
    told += _differs("engine", old.get("engine"), new.get("engine"))
    return told + _differs_within(old.get("settings", {}), new["settings"])


def _differs_within(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [line for key in {**old, **new} for line in _differs(key, old.get(key), new.get(key))]


def _differs(key: str, old: object, new: object) -> list[str]:
    return [] if old == new else [f"{key} was {old}, is {new}"]
