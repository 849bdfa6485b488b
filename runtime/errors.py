"""The errors of the runtime: what happened, the facts in fields, and what to do next in one line.

UnmaskError
 ├─ BundleError(path)
 │   ├─ BundleMissing          a bundle, or a file of it, is not there
 │   ├─ BundleInvalid          the manifest cannot be read or lacks something
 │   ├─ BundleMismatch         a file is not the one that the manifest describes
 │   └─ BundleUnsupported      the bundle is of another format version
 ├─ EngineError
 │   ├─ EngineUnknown          no engine has this name
 │   ├─ EngineUnavailable      the engine exists, but cannot run here
 │   └─ EngineFailed           the engine ran and broke
 │       ├─ DeviceMemoryFull   the GPU has too little memory left for it
 │       └─ DeviceLost         the GPU stopped answering
 ├─ ServerError
 │   ├─ PortBusy               someone else listens there
 │   └─ AddressUnusable        this machine cannot listen there
 └─ RecordingFailed            a line of --jsonl could not be written
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path


class UnmaskError(Exception):
    """Names a failure that the user can act on; `str()` is one line that says how."""


class BundleError(UnmaskError):
    """Says that a model bundle cannot be used.

    Args:
        path: The bundle, or the file of it, that is at fault.
        reason: What is wrong with it, without a full stop.
    """

    advice = "export it again with `unmask export`, or leave out --model to use the bundled one"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.advice}"


class BundleMissing(BundleError, FileNotFoundError):
    """Says that a bundle, or a file that its manifest names, does not exist."""

    advice = "give the directory that `unmask export` wrote, or leave out --model to use the bundled one"


class BundleInvalid(BundleError, ValueError):
    """Says that a manifest is not readable JSON, lacks a key or holds an impossible value."""


class BundleMismatch(BundleError, ValueError):
    """Says that a file differs from what the manifest states about it (hash, input names, shapes)."""

    advice = "the file was changed or cut short: copy the whole directory again or export it again"


class BundleUnsupported(BundleError, ValueError):
    """Says that a bundle has a format version that this program does not know.

    Args:
        path: The bundle's manifest.
        version: The version found.
        known: The newest version that this program reads.
    """

    def __init__(self, path: Path, version: object, known: int) -> None:
        super().__init__(path, f"format version {version!r} is not known here, only {known} is")
        self.version = version
        self.known = known
        newer = isinstance(version, int) and version > known
        self.advice = "update unmask" if newer else "export the bundle again with this version of unmask"


class EngineError(UnmaskError):
    """Says that an inference engine cannot give an answer."""


class EngineUnknown(EngineError, ValueError):
    """Says that no engine has the asked-for name.

    Args:
        choice: The name asked for.
        choices: The names that exist.
    """

    def __init__(self, choice: str, choices: Sequence[str]) -> None:
        super().__init__(choice, tuple(choices))
        self.choice = choice
        self.choices = tuple(choices)

    def __str__(self) -> str:
        return f"unknown engine {self.choice!r}; choose one of {', '.join(self.choices)}"


class EngineUnavailable(EngineError, RuntimeError):
    """Says that an engine exists but cannot run on this machine or in this version.

    Args:
        engine: Its name.
        reason: Why it cannot run, without a full stop.
        advice: What to install or choose instead.
    """

    def __init__(self, engine: str, reason: str, advice: str) -> None:
        super().__init__(engine, reason, advice)
        self.engine = engine
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"the {self.engine} engine cannot run: {self.reason}; {self.advice}"


class EngineFailed(EngineError, RuntimeError):
    """Says that a running engine broke or gave something that is not a number.

    Args:
        engine: Its name.
        reason: What it said, in one line.
    """

    advice = "restart, or choose another with --engine"

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(engine, reason)
        self.engine = engine
        self.reason = reason

    def __str__(self) -> str:
        return f"the {self.engine} engine failed: {self.reason}; {self.advice}"


class DeviceMemoryFull(EngineFailed):
    """Says that the GPU has too little memory left for an engine."""

    advice = "end what else runs on the GPU, or use --engine onnxruntime"


class DeviceLost(EngineFailed):
    """Says that the GPU stopped answering: nothing in this process can reach it any more."""

    advice = (
        "restart; if it comes again, look for Xid in the kernel's log (dmesg), or use --engine onnxruntime"
    )


class ServerError(UnmaskError, OSError):
    """Says that the server cannot listen on its address.

    Args:
        host: The address to listen on.
        port: The port to listen on.
        code: The system's error number.
    """

    def __init__(self, host: str, port: int, code: int = errno.EADDRNOTAVAIL) -> None:
        super().__init__(code, os.strerror(code))
        self.host = host
        self.port = port


class PortBusy(ServerError):
    """Says that the server's address is taken.

    Args:
        host: The address to listen on.
        port: The port that is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, errno.EADDRINUSE)

    def __str__(self) -> str:
        return (
            f"port {self.port} on {self.host} is taken; stop the other program or choose another with --port"
        )


class AddressUnusable(ServerError):
    """Says that the server's address is not one that this program may listen on.

    Args:
        host: The address to listen on.
        port: The port to listen on.
        reason: What the system said, without a full stop.
    """

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host} port {self.port}: {self.reason}; "
            "give an address of this machine with --host and a port from 1024 on with --port"
        )


class JsonlFailed(UnmaskError, OSError):
    """Says that messages can no longer be written where `--jsonl` asked for them.

    Args:
        target: The path, or `-` for standard output.
        cause: What the system said.
    """

    def __init__(self, target: str, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, target)
        self.target = target
        self.cause = cause

    @property
    def closed(self) -> bool:
        """Tell whether the reader of the pipe has left, as `head` does: the end, but no fault."""
        return isinstance(self.cause, BrokenPipeError)

    def __str__(self) -> str:
        where = "standard output" if self.target == "-" else self.target
        reason = (self.cause.strerror or str(self.cause)).lower()
        return f"cannot write to {where}: {reason}; give another path with --jsonl"
