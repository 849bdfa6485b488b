"""The command `unmask monitor --scan-uploads`, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from unmask import run

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60.0


def test_a_server_without_sources(small_bundle: Path, face_video: Path, tmp_path: Path) -> None:
    """It prints the page's address, scans an upload, and leaves nothing behind when it is killed."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "unmask", "monitor", "--scan-uploads", "--port", "0"),
            "--model",
            small_bundle,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        page = next(match[1] for line in process.stderr if (match := re.search(r"scan a video: (\S+)", line)))
        scans = page.removesuffix("scan") + "scans/"
        upload = urllib.request.Request(f"{scans}?name=a.mp4", face_video.read_bytes(), method="POST")
        with urllib.request.urlopen(upload, timeout=TIMEOUT_S) as response:
            job_id = json.load(response)["id"]
        deadline = time.monotonic() + TIMEOUT_S
        state = "waiting"
        while state in ("waiting", "scanning"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
            with urllib.request.urlopen(f"{scans}{job_id}", timeout=TIMEOUT_S) as response:
                state = json.load(response)["state"]
        assert state == "done"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_something_to_do_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a source and without uploads there is nothing to watch."""
    assert run(["monitor"]) == 2
    assert capsys.readouterr().err == "unmask: missing argument 'SOURCE...'; see `unmask monitor --help`\n"
