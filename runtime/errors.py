"""Errors of the runtime, with facts in fields and a message of one line with advice.

UnmaskError
 ├─ PathError                  a file or directory cannot be used; base of those marked with *
 ├─ BundleError *
 │   ├─ BundleMissing          the bundle or one of its files does not exist
 │   ├─ BundleInvalid          the manifest is unreadable or incomplete
 │   ├─ BundleMismatch         a file differs from its description in the manifest
 │   └─ BundleUnsupported      the bundle has another format version
 ├─ EngineError
 │   ├─ EngineUnknown          there is no engine of this name
 │   ├─ EngineUnavailable      the engine cannot run on this machine
 │   └─ EngineFailed           the engine failed while running
 │       ├─ DeviceMemoryFull   the GPU has too little free memory
 │       └─ DeviceLost         the GPU no longer responds
 ├─ ServerError
 │   ├─ PortBusy               another program listens on the port
 │   └─ AddressUnusable        this machine cannot listen on the address
 ├─ ConfigInvalid              names or values of the configuration are wrong
 ├─ TokenFileInvalid           a token file cannot be read or has a malformed line
 ├─ CertificateInvalid *       a certificate or its key cannot be used
 ├─ OutputNotWritten           standard output cannot be written
 ├─ JsonlFailed                a line of --jsonl could not be written
 ├─ EvidenceFailed             evidence cannot be kept in a folder
 ├─ ExtraMissing               an optional library is not installed
 ├─ VideoNotWritten *          an annotated video cannot be written
 ├─ RecordedOutputsInvalid *   a file has no recorded outputs of an engine
 ├─ StreamUnknown              there is no stream of this name
 ├─ StreamNameTaken            there is a stream of this name already
 ├─ RateTooHigh                more verdicts per second requested than the model takes samples
 ├─ CameraNotCalibrated        a stretch yields no thresholds for its camera
 ├─ NoVideos                   a directory to scan contains no video file
 ├─ ReportNotWritten *         a report of a scan cannot be written
 ├─ ResumeFailed *             the lines of an earlier scan cannot be read or continued
 └─ FleetError
     ├─ ClusterUnreachable     there is no usable Ray cluster at an address
     ├─ ClusterLost            the Ray cluster has stopped
     └─ NoWorkers              no worker can go on
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from streams.text import printable

MAX_PROBLEM = 1000  # characters of a problem of a configuration or a bundle


def os_reason(error: OSError) -> str:
    """Return why a call of the operating system failed, in a few words for the middle of a message."""
    return (error.strerror or str(error)).lower()


class UnmaskError(Exception):
    """Base of all errors that the user can act on; `str()` is one line with advice."""

    exit_code = 2
    """Exit code of a program that ends with it: 2 after a mistake, which a restart would repeat; 1 if
    something failed that may work after a restart."""


class PathError(UnmaskError):
    """Base of the errors about a file or directory.

    Args:
        path: The file or directory; another name if it is none of these.
        reason: What is wrong with it, without a full stop.
        advice: What to do; None for that of the class.
    """

    what = ""
    """Words before the path in the message."""
    advice = ""

    def __init__(self, path: Path | str, reason: str, advice: str | None = None) -> None:
        self.path = path
        # It may quote a file that comes from others.
        self.reason = printable(reason, MAX_PROBLEM)
        self.advice = self.advice if advice is None else advice
        super().__init__(path, reason, self.advice)

    def __str__(self) -> str:
        return f"{self.what}{self.path}: {self.reason}; {self.advice}"


class BundleError(PathError):
    """A model bundle cannot be used; `path` is that of the bundle, or of the file in it."""

    advice = "export it again with `unmask export`, or leave the model out to use the bundled one"


class BundleMissing(BundleError, FileNotFoundError):
    """The bundle, or a file listed in its manifest, does not exist."""

    advice = "give the directory that `unmask export` wrote, or leave the model out to use the bundled one"


class BundleInvalid(BundleError, ValueError):
    """The manifest is not valid JSON, lacks a key or has an invalid value."""


class BundleMismatch(BundleError, ValueError):
    """A file differs from the manifest (hash, input names, shapes)."""

    advice = "the file was changed or cut short: copy the whole directory again or export it again"


class BundleUnsupported(BundleError, ValueError):
    """The bundle has a format version that this program does not read.

    Args:
        path: Path of the manifest.
        version: Format version of the bundle.
        known: Format version that this program reads.
    """

    def __init__(self, path: Path, version: object, known: int) -> None:
        newer = isinstance(version, int) and version > known
        advice = "update unmask" if newer else "export the bundle again with this version of unmask"
        super().__init__(path, f"its format version is {version!r}, this program reads {known}", advice)
        self.args = (path, version, known)
        self.version = version
        self.known = known


class EngineError(UnmaskError):
    """An inference engine cannot compute a result."""


class EngineUnknown(EngineError, ValueError):
    """Name of an engine that does not exist.

    Args:
        choice: Requested name.
        choices: Names of all engines.
    """

    def __init__(self, choice: str, choices: Sequence[str]) -> None:
        super().__init__(choice, tuple(choices))
        self.choice = choice
        self.choices = tuple(choices)

    def __str__(self) -> str:
        return f"unknown engine {self.choice!r}; choose one of {', '.join(self.choices)}"


class EngineUnavailable(EngineError, RuntimeError):
    """An engine cannot run on this machine or with the installed versions.

    Args:
        engine: Name of the engine.
        reason: Cause, without a full stop.
        advice: What to install or to choose instead.
    """

    def __init__(self, engine: str, reason: str, advice: str) -> None:
        super().__init__(engine, reason, advice)
        self.engine = engine
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"the {self.engine} engine cannot run: {self.reason}; {self.advice}"


class EngineFailed(EngineError, RuntimeError):
    """An engine failed while running, or its output is not finite.

    Args:
        engine: Name of the engine.
        reason: Cause; its line breaks become spaces, as messages of libraries have several lines.
    """

    exit_code = 1
    advice = "restart, or choose another with --engine"

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(engine, reason)
        self.engine = engine
        self.reason = " ".join(reason.split())

    def __str__(self) -> str:
        return f"the {self.engine} engine failed: {self.reason}; {self.advice}"


class DeviceMemoryFull(EngineFailed):
    """The GPU has too little free memory."""

    advice = "stop other programs on the GPU, or use --engine onnxruntime"


class DeviceLost(EngineFailed):
    """The GPU no longer responds to this process."""

    advice = (
        "restart; if it happens again, look for Xid in the kernel log (dmesg), or use --engine onnxruntime"
    )


class ServerError(UnmaskError, OSError):
    """The server cannot listen on its address.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        code: Error number of the system.
    """

    def __init__(self, host: str, port: int, code: int = errno.EADDRNOTAVAIL) -> None:
        super().__init__(code, os.strerror(code))
        self.host = host
        self.port = port


class PortBusy(ServerError):
    """Another program listens on the port.

    Args:
        host: Address to listen on.
        port: Port in use.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port, errno.EADDRINUSE)

    def __str__(self) -> str:
        return (
            f"port {self.port} on {self.host} is in use; stop the other program or choose another with --port"
        )


class AddressUnusable(ServerError):
    """This machine, or this user, cannot listen on the address.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        reason: Error message of the system, without a full stop.
    """

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(host, port)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"cannot listen on {self.host} port {self.port}: {self.reason}; "
            "give an address of this machine with --host and a port from 1024 on with --port"
        )


class ConfigInvalid(UnmaskError, ValueError):
    """Names or values of the configuration are wrong.

    Args:
        problems: One line for each, with its place, such as `unmask.toml:7: server.port: expected int`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        # The names of keys are the user's, and may contain line breaks.
        self.problems = tuple(printable(problem, MAX_PROBLEM) for problem in problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        more = len(self.problems) - 1
        return self.problems[0] + (f" (and {more} more; see `unmask config check`)" if more else "")


class TokenFileInvalid(UnmaskError, ValueError):
    """A token file cannot be read or created, contains no token, or has a malformed line.

    Args:
        path: The file.
        line: Number of the line; None if the whole file is the cause.
        reason: Cause, without a full stop and without the token.
    """

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path = path
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        where = str(self.path) if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.reason}; write one token a line: TOKEN [RIGHT...] [name=NAME] [expires=TIME]"


class CertificateInvalid(PathError, ValueError):
    """A TLS certificate or its key cannot be used."""

    advice = "give a PEM certificate chain with --cert and its key, without a passphrase, with --key"


class OutputNotWritten(UnmaskError, OSError):
    """Standard output cannot be written, for example on a full disk.

    Args:
        cause: Error of the system.
    """

    exit_code = 1

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror)
        self.cause = cause

    def __str__(self) -> str:
        reason = os_reason(self.cause)
        return f"cannot write to standard output: {reason}; make room, or write it to another place"


class JsonlFailed(UnmaskError, OSError):
    """A message cannot be written to the target of `--jsonl`.

    Args:
        target: Path, or `-` for standard output.
        cause: Error of the system.
    """

    def __init__(self, target: str, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, target)
        self.target = target
        self.cause = cause

    @property
    def reason(self) -> str:
        """Target and cause, without advice."""
        where = "standard output" if self.target == "-" else self.target
        return f"cannot write to {where}: {os_reason(self.cause)}"

    def __str__(self) -> str:
        return f"{self.reason}; give another path with --jsonl"


class EvidenceFailed(UnmaskError, OSError):
    """The folder for evidence cannot be used.

    Args:
        folder: The folder.
        cause: Error of the system.
    """

    def __init__(self, folder: str, cause: OSError) -> None:
        super().__init__(cause.errno, cause.strerror, folder)
        self.folder = folder
        self.cause = cause

    def __str__(self) -> str:
        reason = os_reason(self.cause)
        return f"{self.folder}: no evidence can be kept here: {reason}; give another folder with --evidence"


class RecordedOutputsInvalid(PathError, ValueError):
    """A file has no recorded outputs of an engine."""

    advice = "make it with `python -m runtime.engines.recorded_outputs CROPS RECORDED --prepared FOLDER`"


class VideoNotWritten(PathError, OSError):
    """An annotated video cannot be written."""

    what = "cannot write the annotated video "
    advice = "give --annotate a path in an existing directory that ends in .mp4"


class ExtraMissing(UnmaskError, ImportError):
    """A library that only some uses need is not installed.

    Args:
        use: What needs it.
        library: Name of the library.
        extra: Extra of unmask that contains it.
    """

    def __init__(self, use: str, library: str, extra: str) -> None:
        super().__init__(use, library, extra)
        self.use = use
        self.library = library
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.use} needs {self.library}, which is not installed; pip install 'unmask[{self.extra}]'"


class StreamUnknown(UnmaskError, LookupError):
    """There is no stream of this name.

    Args:
        name: The name.
        names: Names of all streams.
    """

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(name, tuple(names))
        self.name = name
        self.names = tuple(names)

    def __str__(self) -> str:
        known = ", ".join(repr(name) for name in self.names) or "none"
        return f"there is no stream {self.name!r}; the streams are {known}"


class StreamNameTaken(UnmaskError, ValueError):
    """There is a stream of this name already.

    Args:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is a stream {self.name!r} already; give another name"


class RateTooHigh(UnmaskError, ValueError):
    """More verdicts per second were requested than the model takes samples.

    Args:
        rate_hz: Requested rate.
        sample_hz: Sample rate of the model.
        place: Place of the setting, such as `unmask.toml:7: rate`; None if the user has not written it.
    """

    def __init__(self, rate_hz: float, sample_hz: float, place: str | None = None) -> None:
        super().__init__(rate_hz, sample_hz, place)
        self.rate_hz = rate_hz
        self.sample_hz = sample_hz
        self.place = place

    def __str__(self) -> str:
        return (
            f"{self.place or f'rate {self.rate_hz:g}'}: the model takes {self.sample_hz:g} samples a second; "
            f"give a rate of at most {self.sample_hz:g}"
        )


class CameraNotCalibrated(UnmaskError, ValueError):
    """No thresholds for a camera can be derived from a stretch.

    Args:
        reason: Cause, without a full stop.
        advice: What to do.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason, advice)
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}"


class NoVideos(UnmaskError, ValueError):
    """A directory contains no video file.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: no video files in this directory; give another directory, or a file"


class ReportNotWritten(PathError, ValueError):
    """A report of a scan cannot be written."""

    what = "cannot write the report "
    advice = "give --report a path in an existing directory that ends in .html or .json"


class ResumeFailed(PathError, ValueError):
    """The lines of an earlier scan cannot be read or continued."""

    what = "cannot continue "
    advice = "give --resume the JSON lines of an earlier scan, or a new file"


class FleetError(UnmaskError):
    """Work on a Ray cluster, or in several processes, cannot begin or go on."""


class ClusterUnreachable(FleetError, ConnectionError):
    """There is no usable Ray cluster at an address.

    Args:
        address: Address as given; None for a cluster of this machine.
        reason: Cause, without a full stop.
        advice: What to do.
    """

    def __init__(
        self,
        address: str | None,
        reason: str,
        advice: str = "start one with `ray start --head`, join it with `ray start --address=HOST:6379`, "
        "and give that address",
    ) -> None:
        super().__init__(address, reason, advice)
        self.address = address
        self.reason = printable(reason, MAX_PROBLEM)
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.address or 'Ray on this machine'}: {self.reason}; {self.advice}"


class ClusterLost(FleetError, ConnectionError):
    """The Ray cluster has stopped while it was in use.

    Args:
        address: Address of the cluster.
    """

    exit_code = 1

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"the Ray cluster at {self.address} has stopped; start it and this command again"


class NoWorkers(FleetError, RuntimeError):
    """No worker can go on.

    Args:
        reasons: Why each could not, in one line.
    """

    exit_code = 1

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(tuple(reasons))
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        last = f"; the last reason: {self.reasons[-1]}" if self.reasons else ""
        return f"no worker is left{last}"
