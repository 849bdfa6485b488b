"""The errors of the export: what happened, the figures in fields, and what to do next in one line.

ExportError
 ├─ GraphUnsupported     the exporter gave a graph that is not the agreed one
 ├─ OutputOccupied       the place for the bundle holds something else
 ├─ CropsUnreadable    no crops could be read where some were promised
 ├─ WeightsUnusable      a trained weight cannot be stored
 ├─ ParityFailed         a gate measured more than it allows; nothing was written
 ├─ EnginesDiffer        an engine answers otherwise than torch, by more than is allowed
 ├─ RecordedOutputsForeign   recorded outputs are of another model or of other crops
 ├─ CheckpointUnusable   the checkpoint or its calibration cannot be read
 └─ SourceUnclear        what was given is neither to be exported nor to be checked
"""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UnmaskError


class ExportError(UnmaskError):
    """Says that a checkpoint could not be made into a bundle."""


class GraphUnsupported(ExportError, ValueError):
    """Says that the exported graph is not what the runtime agreed to run.

    Args:
        graph: `backbone` or `head`.
        reason: What is wrong with it, without a full stop.
    """

    def __init__(self, graph: str, reason: str) -> None:
        super().__init__(graph, reason)
        self.graph = graph
        self.reason = reason

    def __str__(self) -> str:
        return f"the exported {self.graph} cannot be used: {self.reason}; keep to layers that export knows"


class OutputOccupied(ExportError, FileExistsError):
    """Says that the output directory holds something that is no bundle.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} exists and is no model bundle; give another --out, or empty it"


class CropsUnreadable(ExportError, ValueError):
    """Says that no usable face crops are at a path.

    Args:
        path: Where they should be.
        reason: Why they are of no use, without a full stop.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give a folder or tar file of face crops, one subfolder per clip"


class WeightsUnusable(ExportError, ValueError):
    """Says that a weight cannot be stored as asked.

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
    """Says that the deployed model is not the trained one.

    Args:
        gate: `A` (engine against torch) or `B` (stored against trained weights).
        quantity: What was measured.
        measured: How much it is.
        allowed: How much it may be.
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
    """Says that an engine is further from torch than the manifest allows.

    Args:
        engine: Which, and in which precision.
        quantity: The figure that is too large.
        measured: How large it is.
        allowed: How large it may be.
    """

    def __init__(self, engine: str, quantity: str, measured: float, allowed: float) -> None:
        super().__init__(engine, quantity, measured, allowed)
        self.engine = engine
        self.quantity = quantity
        self.measured = measured
        self.allowed = allowed

    def __str__(self) -> str:
        return (
            f"{self.engine} does not answer as torch does: {self.quantity} is {self.measured:.3g}, "
            f"allowed is {self.allowed:.3g}; do not use it with this model"
        )


class RecordedOutputsForeign(ExportError, ValueError):
    """Says that recorded outputs are of another model or of other crops.

    Args:
        path: The file.
        what: What it is of instead.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.path} holds outputs recorded for {self.what}; "
            "record them again with the crops that --save-crops writes"
        )


class SourceUnclear(ExportError, ValueError):
    """Says that nothing can be done with the given directory and options.

    Args:
        path: The directory.
        reason: Why, without a full stop.
        advice: What to give instead.
    """

    def __init__(self, path: Path, reason: str, advice: str) -> None:
        super().__init__(path, reason, advice)
        self.path = path
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.advice}"


class CheckpointUnusable(ExportError, ValueError):
    """Says that a checkpoint or its calibration cannot be read.

    Args:
        error: What training's own reader said, with what to do about it.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return str(self.error)
