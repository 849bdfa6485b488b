"""Errors of the benchmarks. Facts are in fields; the message says what happened and what to do next.

UnmaskError
 └─ BenchmarkError
     ├─ NothingMeasured    a source gave no verdict
     ├─ VideoTooShort      a video has fewer frames than one clip of the original method
     ├─ SettingInvalid     an option has a value that cannot be measured
     ├─ RecordNotWritten   the record cannot be written to the given path
     ├─ RecordUnreadable   the record to compare with is not one of this benchmark
     ├─ NoGpu              the machine has no usable NVIDIA GPU
     ├─ StepEnded          the process of a measurement ended before it had a result
     └─ HelperFailed       a helper process (cameras, subscribers) did not start, or failed
"""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UnmaskError, os_reason


class BenchmarkError(UnmaskError):
    """Base class of the benchmarks' errors."""


class NothingMeasured(BenchmarkError, ValueError):
    """Source that gave no verdict to measure.

    Args:
        source: The source, as given by the user.
        reason: Why there was no verdict.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: nothing to measure ({self.reason}); give a video with a face, or demo"


class VideoTooShort(BenchmarkError, ValueError):
    """Video with fewer frames than one clip of the original method.

    Args:
        source: The source, as given by the user.
        frames: Number of its frames.
        needed: Number of frames needed.
    """

    def __init__(self, source: str, frames: int, needed: int) -> None:
        super().__init__(source, frames, needed)
        self.source = source
        self.frames = frames
        self.needed = needed

    def __str__(self) -> str:
        return (
            f"{self.source}: it has {self.frames} frames, but the original method scores {self.needed} "
            "at once; give a longer video"
        )


class SettingInvalid(BenchmarkError, ValueError):
    """Option with a value that cannot be measured.

    Args:
        option: Name of the option on the command line.
        value: The value.
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
    """Record that cannot be written to the given path.

    Args:
        path: The path.
        cause: Error of the system.
    """

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, str(path))
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: cannot be written ({os_reason(self)}); give another path with --json"


class RecordUnreadable(BenchmarkError, ValueError):
    """File to compare with that is not a record of this benchmark.

    Args:
        path: The file.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give --compare a file that the same benchmark wrote with --json"


class NoGpu(BenchmarkError):
    """Machine without a usable NVIDIA GPU.

    Args:
        reason: Why there is none, without a full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"`unmask bench gpu` needs an NVIDIA GPU: {self.reason}; run it on a machine that has one"


class StepEnded(BenchmarkError, RuntimeError):
    """Process of a measurement that ended before it had a result.

    Args:
        step: Function that it ran.
    """

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.step = step

    def __str__(self) -> str:
        return f"the process of the step {self.step} ended without a result; is there enough free memory?"


class HelperFailed(BenchmarkError, RuntimeError):
    """Helper process that did not start, or failed.

    Args:
        role: What it runs, such as `cameras` or `subscribers`.
        reason: What happened, without a full stop.
        advice: What to do.
    """

    def __init__(self, role: str, reason: str, advice: str = "try fewer of them") -> None:
        super().__init__(role, reason, advice)
        self.role = role
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"the benchmark's {self.role} failed ({self.reason}); {self.advice}"
