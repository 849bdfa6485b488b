"""Tests of the page that sends this computer's camera, in a Chromium whose camera is a video file."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from tests.support.axe import serious_faults
from tests.support.browser import Browser, chromium, find_chromium

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def camera_browser(
    face_video: Path, tmp_path_factory: pytest.TempPathFactory, skip_or_fail: Callable[[str], None]
) -> Iterator[Browser]:
    """Chromium that gives every page its camera, which shows a face, and its own tab as a window."""
    program = find_chromium()
    if program is None:
        skip_or_fail("Chromium is not installed (Debian: apt install chromium)")
        return
    folder = tmp_path_factory.mktemp("camera")
    with chromium(
        program,
        folder,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={write_mjpeg(face_video, folder / 'face.mjpeg')}",
        "--auto-select-tab-capture-source-by-title=unmask: this computer",
    ) as running:
        yield running


def write_mjpeg(video: Path, target: Path) -> Path:
    """Convert a video to the format that Chromium's fake camera reads."""
    with av.open(str(video)) as source, av.open(str(target), "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=25, options={"qmin": "2", "qmax": "3"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuvj420p"
        for frame in source.decode(video=0):
            output.mux(stream.encode(frame.reformat(format="yuvj420p")))
        output.mux(stream.encode(None))
    return target


@pytest.fixture(scope="module")
def monitor() -> Iterator[tuple[str, list[str]]]:
    """Address of `unmask monitor` with a source for this page, and its log."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unmask", "monitor", "desk=browser", "secret=whip:s3cr3t", "--port", "0"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        url = ""
        while not url and (line := process.stderr.readline()):
            lines.append(line)
            url = line.rpartition("dashboard: ")[2].strip() if "dashboard: " in line else ""
        reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        reading.start()
        yield url, lines
        process.terminate()
        assert process.wait(20) == 0
        reading.join()
        assert "Traceback" not in "".join(lines)
        assert "s3cr3t" not in "".join(lines)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_this_computers_camera(
    width: int, dark: bool, camera_browser: Browser, monitor: tuple[str, list[str]]
) -> None:
    """A click sends the camera; verdicts are drawn over the page's own preview, on the face."""
    page = camera_browser.open(f"{monitor[0]}camera", width=width, dark=dark)
    assert serious_faults(page) == []
    page.evaluate("document.getElementById('camera').click()")
    page.wait_for(
        "document.querySelector('.box[data-state=real], .box[data-state=uncertain], .box[data-state=fake]')"
    )
    assert page.evaluate("document.getElementById('progress').textContent") == "desk: live"
    left, top, across, down = page.evaluate(
        "(() => { const b = document.querySelector('.box').getBoundingClientRect(),"
        " v = document.getElementById('preview').getBoundingClientRect();"
        " return [b.left - v.left, b.top - v.top, b.width, b.height].map("
        "   (length, index) => length / [v.width, v.height][index % 2]); })()"
    )
    # The portrait moves between 60 and 420 of 640 pixels; its face is in the middle.
    assert 0.1 < left + across / 2 < 0.6
    assert 0.2 < top + down / 2 < 0.7
    assert serious_faults(page) == []
    assert page.evaluate("document.getElementById('verdicts').clientHeight") > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for("/(Real|Uncertain|Fake): face \\d+/.test(document.getElementById('verdicts').innerText)")
    page.evaluate("document.getElementById('stop').click()")
    page.wait_for("document.getElementById('stage').hidden")
    assert page.console_errors == []
    page.close()


def test_a_window_or_tab(camera_browser: Browser, monitor: tuple[str, list[str]]) -> None:
    """A shared tab is sent to the same source after the camera."""
    page = camera_browser.open(f"{monitor[0]}camera")
    state = "fetch('healthz').then((r) => r.json()).then((health) => health.streams.desk)"
    wait = "await new Promise((resolve) => setTimeout(resolve, 50))"
    page.evaluate(f"(async () => {{ while (await {state} !== 'offline') {wait}; }})()")
    page.command("Runtime.evaluate", expression="document.getElementById('window').click()", userGesture=True)
    page.wait_for("/desk: (live|no face)/.test(document.getElementById('progress').textContent)")
    assert page.evaluate("document.getElementById('preview').videoWidth") > 0
    page.evaluate("document.getElementById('stop').click()")
    assert page.console_errors == []
    page.close()


def test_the_page_says_what_is_wrong(camera_browser: Browser, monitor: tuple[str, list[str]]) -> None:
    """Without a source for it, the page shows the server's reason and releases the camera."""
    page = camera_browser.open(f"{monitor[0]}camera?key=other")
    page.evaluate("document.getElementById('camera').click()")
    page.wait_for(
        "document.getElementById('problem').textContent.includes('start unmask with the source browser')"
    )
    assert page.evaluate("document.getElementById('stage').hidden")
    page.close()
