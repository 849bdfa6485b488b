"""Record of a soak: its minutes and its faults, compared with limits. No I/O and no clock."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.suites.soak.faults import Affected
from benchmarks.suites.soak.monitored_process import Usage

# Memory grows until every part of the program has been used, so the first fifth is not compared.
SETTLING = 0.2
MAX_GROWTH_MIB = 32.0
MAX_MORE_THREADS = 4
MAX_MORE_FILES = 4
MAX_STOP_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Minute:
    """Measurements of one interval between two faults.

    Args:
        end_s: Its end, in seconds since the start.
        usage: Resources at its end.
        scores_hz: Scores per second and camera, on average.
        gap_s: Longest time without a score of any camera that no fault affected. The time in which its stream
            was `overloaded` does not count.
        overloaded: Share of the time in which a stream was `overloaded`, on average.
        load: Average number of processes of the whole machine that ran or waited for a core.
    """

    end_s: float
    usage: Usage
    scores_hz: float
    gap_s: float
    overloaded: float
    load: float


@dataclass(frozen=True, kw_only=True)
class Injection:
    """One fault as it was injected.

    Args:
        at_s: Its start, in seconds since the start of the soak.
        fault: What happened.
        camera: The camera it happened to, if any.
        affects: Cameras that may be without a score meanwhile.
        states: States that the camera's stream went through.
        recovery_s: Seconds from the end of the fault to the next score of the slowest affected camera; None
            if there was none.
    """

    at_s: float
    fault: str
    camera: str
    affects: Affected
    states: Sequence[str]
    recovery_s: float | None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit.

    Args:
        name: What is limited.
        value: The measured value.
        limit: The limit.
        passed: Whether it was kept.
    """

    name: str
    value: float
    limit: float
    passed: bool


def checks(
    minutes: Sequence[Minute],
    injections: Sequence[Injection],
    *,
    max_gap_s: float,
    max_recovery_s: float,
    tracebacks: int,
    exit_code: int,
    stopped_s: float,
) -> list[Check]:
    """Compare a soak with its limits.

    Args:
        minutes: At least one.
        injections: Injected faults.
        max_gap_s: Longest time without a score that a camera without a fault may have.
        max_recovery_s: Longest time to the first score after a fault.
        tracebacks: Tracebacks in the program's log.
        exit_code: Its exit code after SIGTERM.
        stopped_s: Seconds that it took to end.
    """
    settled = minutes[int(SETTLING * len(minutes)) :]
    third = max(1, len(settled) // 3)
    first, last = settled[:third], settled[-third:]

    def growth(field: str) -> float:
        early, late = (
            statistics.median(getattr(minute.usage, field) for minute in part) for part in (first, last)
        )
        return float(late - early)

    recoveries = [
        float("inf") if each.recovery_s is None else each.recovery_s
        for each in injections
        if each.affects != "none"
    ]
    limits = [
        ("memory growth, MiB", growth("memory_mib"), MAX_GROWTH_MIB),
        ("more threads", growth("threads"), MAX_MORE_THREADS),
        ("more file descriptors", growth("files"), MAX_MORE_FILES),
        ("longest gap without a fault, s", max(minute.gap_s for minute in minutes), max_gap_s),
        ("slowest recovery, s", max(recoveries, default=0.0), max_recovery_s),
        ("tracebacks", float(tracebacks), 0.0),
        ("exit code", float(abs(exit_code)), 0.0),
        ("time to stop, s", stopped_s, MAX_STOP_S),
    ]
    return [
        Check(name=name, value=round(value, 2), limit=limit, passed=value <= limit)
        for name, value, limit in limits
    ]


def as_json(rows: Sequence[Minute] | Sequence[Injection] | Sequence[Check]) -> list[dict[str, Any]]:
    """Return rows as JSON values."""
    return [asdict(row) for row in rows]
