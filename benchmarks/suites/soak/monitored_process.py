"""The command `unmask monitor` in a process of its own: its memory, threads and file descriptors."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.harness.errors import HelperFailed

START_S = 120.0
STOP_S = 20.0
ADDRESS = re.compile(r"ws://127\.0\.0\.1:\d+/ws")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Resources of the process.

    Args:
        memory_mib: Resident memory in MiB.
        threads: Number of threads.
        files: Number of open file descriptors.
    """

    memory_mib: float
    threads: int
    files: int


class MonitoredProcess:
    """Running `unmask monitor`; a context manager. Linux only.

    Args:
        arguments: Arguments of the command.
        folder: Folder for its log and its recording.

    Attributes:
        address: Address of its WebSocket.
        stopped_s: Seconds that it took to end after SIGTERM; None while it runs.
        exit_code: Its exit code; None while it runs.

    Raises:
        HelperFailed: On entering: it did not start.
    """

    address = ""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.recording = folder / "verdicts.jsonl"
        self.log = folder / "unmask.log"
        self.stopped_s: float | None = None
        self.exit_code: int | None = None
        self._arguments = [*arguments, "--port", "0", "--jsonl", str(self.recording)]

    def __enter__(self) -> Self:
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "unmask", "monitor", *self._arguments], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.running:
            if found := ADDRESS.search(self.log.read_text(errors="replace")):
                self.address = found[0]
                return self
            time.sleep(0.1)
        self._process.kill()
        self._process.wait()
        reason = self.log.read_text(errors="replace").strip()[-500:]
        raise HelperFailed("monitor", reason, "start `unmask monitor` alone to see why")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Return whether the process still runs."""
        return self._process.poll() is None

    def usage(self) -> Usage:
        """Return its present resources."""
        process = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Usage(
            memory_mib=int(status["VmRSS"].split()[0]) / 1024,
            threads=int(status["Threads"]),
            files=sum(1 for _ in (process / "fd").iterdir()),
        )

    def tracebacks(self) -> int:
        """Return the number of tracebacks in its log."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def suspend(self) -> None:
        """Stop the process, as a laptop that sleeps."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `suspend`."""
        self._process.send_signal(signal.SIGCONT)

    def limit_files(self) -> None:
        """Let no file grow beyond the present size of the recording, as on a full disk."""
        self._set_limit(self.recording.stat().st_size)

    def lift_limit(self) -> None:
        """Remove the limit of `limit_files`."""
        self._set_limit(None)

    def _set_limit(self, size: int | None) -> None:
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def stop(self) -> None:
        """End the process by SIGTERM, and note how it ended."""
        if self.stopped_s is None:
            started = time.monotonic()
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self.stopped_s = time.monotonic() - started
            self.exit_code = self._process.returncode
