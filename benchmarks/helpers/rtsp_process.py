"""Control of an RTSP camera in a process of its own, which runs `rtsp_server.py`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import quote

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's GStreamer bindings are installed for this one
PROGRAM = Path(__file__).with_name("rtsp_server.py")


class RtspProcess:
    """RTSP camera that can be killed, frozen and started again.

    Args:
        video: H.264 file to serve in a loop, or several.
        log: File for the errors of the process.
        arguments: Further arguments of `rtsp_server.py`.
    """

    def __init__(self, video: Path | Sequence[Path], log: Path, *arguments: str) -> None:
        self.port = 0
        self._videos = [video] if isinstance(video, Path) else list(video)
        self._log = log
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self, *arguments: str, videos: Sequence[Path] = ()) -> None:
        """Start the camera; on the same port after the first time.

        Args:
            arguments: Further arguments for this time.
            videos: Files to serve this time instead.
        """
        files = [*(videos or self._videos)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [SYSTEM_PYTHON, PROGRAM, *files, "--port", str(self.port), *self._arguments, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.kill()
            raise RuntimeError(f"the RTSP server did not start: {self._log.read_text()}")
        self.port = int(line)

    def url(self, path: str = "/cam", *, user: str = "", password: str = "") -> str:
        """Return the camera's URL, with credentials if there are any."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        return f"rtsp://{login}127.0.0.1:{self.port}{path}"

    def show(self, number: int) -> None:
        """Change to the video of this number."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        """Stop sending without closing the connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
            self._process = None


@cache
def missing_requirement() -> str:
    """Return what this machine lacks to run the camera; empty if nothing."""
    check = 'import gi; gi.require_version("GstRtspServer", "1.0"); from gi.repository import GstRtspServer'
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"no {SYSTEM_PYTHON}"
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
