"""Errors of the export. Facts are in fields; the message says what happened and what to do next.

ExportError
 ├─ GraphUnsupported         the exported graph is not one that the runtime can run
 ├─ OutputOccupied           the output directory holds something other than a bundle
 ├─ CropsUnreadable          no usable face crops at the given path
 ├─ WeightsUnusable          a trained weight cannot be stored
 ├─ ParityFailed             a parity gate failed; no bundle was written
 ├─ EnginesDiffer            an engine differs from torch by more than the limit
 ├─ CheckNotWritten          the crops or the results of a check cannot be written
 ├─ RecordedOutputsForeign   recorded outputs are of another model or of other crops
 └─ SourceUnclear            the source and the options do not fit together
"""

from __future__ import annotations

from pathlib import Path

from runtime.errors import PathError, UnmaskError


class ExportError(UnmaskError):
    """Base class of the export's errors."""


class GraphUnsupported(ExportError, ValueError):
    """Exported graph that the runtime cannot run.

    Args:
        graph: `backbone` or `head`.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, graph: str, reason: str) -> None:
        super().__init__(graph, reason)
        self.graph = graph
        self.reason = reason

    def __str__(self) -> str:
        return f"the exported {self.graph} cannot be used: {self.reason}; use layers that export supports"


class OutputOccupied(ExportError, FileExistsError):
    """Output directory that holds something other than a bundle.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} exists and is no model bundle; give another --out, or empty it"


class CropsUnreadable(PathError, ExportError, ValueError):
    """Path without usable face crops."""

    advice = "give a folder or tar file of face crops, one subfolder per clip"


class WeightsUnusable(ExportError, ValueError):
    """Trained weight that cannot be stored in the requested type.

    Args:
        reason: What is wrong with it, without a full stop.
        advice: What to do about it.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason, advice)
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}"


class ParityFailed(ExportError, ValueError):
    """Parity gate that measured more than its limit; no bundle was written.

    Args:
        gate: `A` (engine against torch) or `B` (stored against trained weights).
        quantity: Name of the measured quantity.
        measured: Its value.
        allowed: Its limit.
        advice: What to do about it.
    """

    def __init__(self, gate: str, quantity: str, measured: float, allowed: float, advice: str) -> None:
        super().__init__(gate, quantity, measured, allowed, advice)
        self.gate = gate
        self.quantity = quantity
        self.measured = measured
        self.allowed = allowed
        self.advice = advice

    def __str__(self) -> str:
        return (
            f"parity gate {self.gate} failed, no bundle was written: "
            f"{self.quantity} is {self.measured:.3g}, allowed is {self.allowed:.3g}; {self.advice}"
        )


class EnginesDiffer(ExportError, ValueError):
    """Engine whose outputs differ from torch's by more than the limit.

    Args:
        engine: Description of the engine, with its precision.
        quantity: Name of the quantity that is too large.
        measured: Its value.
        allowed: Its limit.
    """

    def __init__(self, engine: str, quantity: str, measured: float, allowed: float) -> None:
        super().__init__(engine, quantity, measured, allowed)
        self.engine = engine
        self.quantity = quantity
        self.measured = measured
        self.allowed = allowed

    def __str__(self) -> str:
        return (
            f"{self.engine} differs from torch: {self.quantity} is {self.measured:.3g}, "
            f"allowed is {self.allowed:.3g}; do not use it with this model"
        )


class CheckNotWritten(PathError, ExportError, OSError):
    """File for the crops or the results of a check that cannot be written."""

    advice = "give --save-crops and --json paths in directories that exist and can be written"


class RecordedOutputsForeign(ExportError, ValueError):
    """Recorded outputs of another model or of other crops.

    Args:
        path: The file.
        recorded_for: `another model` or `other crops`.
    """

    def __init__(self, path: Path, recorded_for: str) -> None:
        super().__init__(path, recorded_for)
        self.path = path
        self.recorded_for = recorded_for

    def __str__(self) -> str:
        return (
            f"{self.path} holds outputs recorded for {self.recorded_for}; "
            "record them again with the crops that --save-crops writes"
        )


class SourceUnclear(PathError, ExportError, ValueError):
    """Source directory that does not fit the given options."""
