"""X servers for tests, with a window that shows a video."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


class Display:
    """Xvfb on a free display, and programs that show something on it."""

    def __init__(self, number: int | None = None, size: str = "800x600") -> None:
        reader, writer = os.pipe()
        name = [f":{number}"] if number is not None else []
        self._programs: list[subprocess.Popen[bytes]] = []
        self._server = subprocess.Popen(
            ["Xvfb", *name, "-displayfd", str(writer), "-screen", "0", f"{size}x24", "-nolisten", "tcp"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[writer],
        )
        os.close(writer)
        # Xvfb writes the number once it accepts connections.
        with os.fdopen(reader) as announced:
            self.number = int(announced.readline())

    def play(self, video: Path, *, left: int = 0, top: int = 0) -> None:
        """Play a video again and again in a window without a border."""
        command = ["ffplay", "-loglevel", "error", "-an", "-noborder", "-loop", "0"]
        command += ["-left", str(left), "-top", str(top), str(video)]
        environment = {**os.environ, "DISPLAY": f":{self.number}", "SDL_VIDEODRIVER": "x11"}
        self._programs.append(
            subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=-3
            )
        )

    def kill(self) -> None:
        """End the server and its programs at once."""
        for process in (*self._programs, self._server):
            process.kill()
            process.wait()
        self._programs.clear()


def missing_program() -> str:
    """Return the program that this machine lacks; empty if none."""
    return next((name for name in ("Xvfb", "ffplay") if shutil.which(name) is None), "")
