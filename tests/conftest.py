"""Fixtures for all tests: test videos, an RTSP camera, a browser, and skipping with a reason."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import av
import hypothesis
import pytest

from benchmarks.helpers import rtsp_process
from benchmarks.helpers.rtsp_process import RtspProcess
from tests.support.browser import Browser, chromium, find_chromium
from tests.support.order import run_order
from tests.support.videos import INDICES, frame_index, write_face_video, write_video

# Examples are the same in every run, except in `make fuzz`. A machine under load may take any time for one.
hypothesis.settings.register_profile("tests", deadline=None, database=None, derandomize=True)
hypothesis.settings.register_profile("fuzz", deadline=None, database=None, max_examples=5000)
hypothesis.settings.load_profile("fuzz" if os.environ.get("UNMASK_FUZZ") == "1" else "tests")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Use an empty cache folder instead of that of the user who runs the tests."""
    cache_folder = tempfile.mkdtemp(prefix="unmask-cache-")
    os.environ["UNMASK_CACHE"] = cache_folder
    session.config.add_cleanup(lambda: shutil.rmtree(cache_folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files in an order that keeps both cores busy until the end; see `tests.support.order`."""
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    items[:] = run_order(files)


def _skip_or_fail(reason: str) -> NoReturn:
    if os.environ.get("UNMASK_REQUIRE_ALL") == "1":
        pytest.fail(f"UNMASK_REQUIRE_ALL=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def skip_or_fail() -> Callable[[str], NoReturn]:
    """Function that skips the test because the machine lacks something; fails with UNMASK_REQUIRE_ALL=1."""
    return _skip_or_fail


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Function `make_video(path, ...)`, see `tests.support.videos.write_video`."""
    return write_video


@pytest.fixture(scope="session")
def make_face_video() -> Callable[..., Path]:
    """Function `make_face_video(path, seconds=4.0, fps=25)`, see `tests.support.videos.write_face_video`."""
    return write_face_video


@pytest.fixture(scope="session")
def index_of() -> Callable[[av.VideoFrame], int]:
    """Function that reads the index of a frame, modulo 100, from its brightness."""
    return frame_index


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of numbered grey frames in H.264 at 25 frames per second."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=INDICES)


@pytest.fixture(scope="session")
def face_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a face in H.264 at 25 frames per second."""
    return write_face_video(tmp_path_factory.mktemp("face") / "face.mp4")


@pytest.fixture
def rtsp_server(tmp_path: Path) -> Iterator[Callable[..., RtspProcess]]:
    """Function that starts a camera.

    Its signature is `rtsp_server(video, auth="none", user="", password="", headers_per_slice=False)`.
    """
    if problem := rtsp_process.missing_requirement():
        _skip_or_fail(
            f"no gst-rtsp-server for {rtsp_process.SYSTEM_PYTHON} ({problem}); "
            "install gir1.2-gst-rtsp-server-1.0"
        )
    cameras: list[RtspProcess] = []

    def serve(
        video: Path,
        *,
        auth: str = "none",
        user: str = "",
        password: str = "",
        headers_per_slice: bool = False,
    ) -> RtspProcess:
        arguments = ["--auth", auth, "--user", user, "--password", password]
        if headers_per_slice:
            arguments.append("--headers-per-slice")
        cameras.append(RtspProcess(video, tmp_path / f"rtsp-{len(cameras)}.log", *arguments))
        return cameras[-1]

    yield serve
    for camera in cameras:
        camera.kill()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium, one for all tests; `browser.open(url)` returns a page."""
    program = find_chromium()
    if program is None:
        _skip_or_fail("Chromium is not installed (Debian: apt install chromium)")
    with chromium(program, tmp_path_factory.mktemp("chromium")) as running:
        yield running
