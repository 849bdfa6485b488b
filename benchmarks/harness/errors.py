"""The errors of the benchmarks: what happened, the facts in fields, and what to do next in one line.

UnmaskError
 └─ BenchmarkError
     ├─ NothingMeasured    a source gave no verdict to measure
     ├─ TooShort           a video has fewer pictures than the original method judges at once
     ├─ SettingInvalid     an option holds what cannot be measured
     ├─ RecordNotWritten   the record cannot be written where it was wanted
     ├─ RecordUnreadable   what is to be compared with is no record of the same benchmark
     └─ HelperFailed       a process that plays the other side could not be started, or broke
"""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UnmaskError


class BenchmarkError(UnmaskError):
    """Says why there is no measurement."""


class NothingMeasured(BenchmarkError, ValueError):
    """Says that a source gave no verdict to measure.

    Args:
        source: As shown to people.
        reason: Why, as far as it is known.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: nothing to measure ({self.reason}); give a video with a face, or demo"


class TooShort(BenchmarkError, ValueError):
    """Says that a video has fewer pictures than the original method judges at once.

    Args:
        source: As shown to people.
        frames: How many pictures it has.
        needed: How many it should have.
    """

    def __init__(self, source: str, frames: int, needed: int) -> None:
        super().__init__(source, frames, needed)
        self.source = source
        self.frames = frames
        self.needed = needed

    def __str__(self) -> str:
        return (
            f"{self.source}: it has {self.frames} frames, but the original method judges {self.needed} "
            "at once; give a longer video"
        )


class SettingInvalid(BenchmarkError, ValueError):
    """Says that an option holds what cannot be measured.

    Args:
        option: As it is spelt on the command line.
        value: What was given.
        advice: What to give instead.
    """

    def __init__(self, option: str, value: object, advice: str) -> None:
        super().__init__(option, value, advice)
        self.option = option
        self.value = value
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.option} {self.value}: {self.advice}"


class RecordNotWritten(BenchmarkError, OSError):
    """Says that a record cannot be written where it was wanted.

    Args:
        path: Where.
        cause: What the system said.
    """

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, str(path))
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: cannot be written ({self.strerror}); give another path with --json"


class RecordUnreadable(BenchmarkError, ValueError):
    """Says that what is to be compared with is no record of the same benchmark.

    Args:
        path: The file.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give with --compare what the same benchmark wrote with --json"


class HelperFailed(BenchmarkError, RuntimeError):
    """Says that a process that plays the other side could not be started, or broke.

    Args:
        role: What it plays.
        reason: What happened, without a full stop.
    """

    def __init__(self, role: str, reason: str) -> None:
        super().__init__(role, reason)
        self.role = role
        self.reason = reason

    def __str__(self) -> str:
        return f"the benchmark's {self.role} failed ({self.reason}); try fewer of them"
