"""Fixtures for all tests: videos whose frames carry their number, an RTSP camera, skipping with a reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import quote

import av
import numpy as np
import pytest
from skimage.data import astronaut

from tests.support.browser import Browser, chromium, find_chromium

SYSTEM_PYTHON = "/usr/bin/python3"  # the one Debian's GStreamer bindings are installed for
RTSP_PROGRAM = Path(__file__).parent / "support" / "rtsp_server.py"

# Luma 16 + 2 x index stays in the limited range; flat pictures at a fine quantiser come out of coding exact.
LUMA_START, LUMA_STEP, INDICES = 16, 2, 100


def lacking(reason: str) -> NoReturn:
    """Skip the test because this machine lacks something; fail it where everything is required."""
    if os.environ.get("UNMASK_REQUIRE_ALL") == "1":
        pytest.fail(f"UNMASK_REQUIRE_ALL=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(name="lacking", scope="session")
def lacking_fixture() -> Callable[[str], NoReturn]:
    """Give tests the way to say what the machine lacks: `lacking("no chromium")` skips or fails."""
    return lacking


def write_video(
    path: Path,
    *,
    frames: int = 50,
    fps: int = 25,
    width: int = 320,
    height: int = 240,
    gop: int = 10,
    b_frames: int = 0,
    codec: Literal["libx264", "mpeg4", "mjpeg"] = "libx264",
    audio: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode flat grey frames whose brightness is their index modulo 100; the suffix tells the container."""
    coder_options = {"preset": "ultrafast", "qp": "8", "bf": str(b_frames)} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps, options={**coder_options, **(options or {})})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.gop_size = gop
        sound = container.add_stream("aac", rate=16000) if audio else None
        for index in range(frames):
            picture = np.full((height * 3 // 2, width), 128, np.uint8)
            picture[:height] = LUMA_START + LUMA_STEP * (index % INDICES)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 16000 * frames // fps), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Give tests `make_video(path, ...)`, which is `write_video`."""
    return write_video


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a four-second H.264 video at 25 frames per second, once for all tests."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=INDICES)


def write_face_video(path: Path, *, seconds: float = 4.0, fps: int = 25) -> Path:
    """Encode a portrait in the public domain that drifts over a grey wall, 640 x 360."""
    portrait = np.asarray(astronaut(), np.uint8)[:280, 80:360]  # type: ignore[no-untyped-call]
    height, width, _ = portrait.shape
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        video.codec_context.gop_size = fps
        for index in range(round(seconds * fps)):
            picture = np.full((360, 640, 3), 90, np.uint8)
            left = 100 + round(40 * np.sin(2 * np.pi * index / (4 * fps)))
            picture[40 : 40 + height, left : left + width] = portrait
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.fixture(scope="session")
def make_face_video() -> Callable[..., Path]:
    """Give tests `make_face_video(path, seconds=4.0, fps=25)`, which is `write_face_video`."""
    return write_face_video


@pytest.fixture(scope="session")
def face_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make four seconds of a face in H.264, once for all tests."""
    return write_face_video(tmp_path_factory.mktemp("face") / "face.mp4")


@pytest.fixture(scope="session")
def index_of() -> Callable[[av.VideoFrame], int]:
    """Give tests the way to read a frame's number (modulo 100) out of its middle."""

    def read(picture: av.VideoFrame) -> int:
        luma = picture.to_ndarray(format="gray8" if picture.format.name == "gray" else "yuv420p")
        middle = int(luma[picture.height // 2, picture.width // 2])
        return round((middle - LUMA_START) / LUMA_STEP)

    return read


class RtspServer:
    """A camera on this machine: a GStreamer server in a process to be killed, frozen and started again."""

    def __init__(self, video: Path, log: Path, *arguments: str) -> None:
        self.port = 0
        self._video = video
        self._log = log
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start the camera; after the first time on the same port."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [SYSTEM_PYTHON, RTSP_PROGRAM, self._video, "--port", str(self.port), *self._arguments],
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
        """Return the camera's address, with credentials if there are any."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        return f"rtsp://{login}127.0.0.1:{self.port}{path}"

    def freeze(self) -> None:
        """Keep the connections and send nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@cache
def _gstreamer_problem() -> str:
    check = 'import gi; gi.require_version("GstRtspServer", "1.0"); from gi.repository import GstRtspServer'
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"no {SYSTEM_PYTHON}"
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


@pytest.fixture
def rtsp_server(tmp_path: Path) -> Iterator[Callable[..., RtspServer]]:
    """Give tests `rtsp_server(video, auth="none", user="", password="", headers_per_slice=False)`, started.

    Of the result they use `url()`, `port`, `kill()`, `start()`, `freeze()` and `thaw()`.
    """
    if problem := _gstreamer_problem():
        lacking(f"no gst-rtsp-server for {SYSTEM_PYTHON} ({problem}); install gir1.2-gst-rtsp-server-1.0")
    servers: list[RtspServer] = []

    def serve(
        video: Path,
        *,
        auth: str = "none",
        user: str = "",
        password: str = "",
        headers_per_slice: bool = False,
    ) -> RtspServer:
        arguments = ["--auth", auth, "--user", user, "--password", password]
        if headers_per_slice:
            arguments.append("--headers-per-slice")
        servers.append(RtspServer(video, tmp_path / f"rtsp-{len(servers)}.log", *arguments))
        return servers[-1]

    yield serve
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give tests a headless Chromium, one for all: `browser.open(url)` is a page to wait in and look at."""
    program = find_chromium()
    if program is None:
        lacking("Chromium is not installed (Debian: apt install chromium)")
    with chromium(program, tmp_path_factory.mktemp("chromium")) as running:
        yield running


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep what engines prepare out of the cache of whoever runs the tests."""
    cache_folder = tempfile.mkdtemp(prefix="unmask-cache-")
    os.environ["UNMASK_CACHE"] = cache_folder
    session.config.add_cleanup(lambda: shutil.rmtree(cache_folder, ignore_errors=True))
