"""Uploads over HTTP, and the page `/scan` in a real browser, on one server with the real scan."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.serving.access.gate import ProxyRules
from runtime.serving.access.tokens import TokenSet, parse_tokens
from runtime.serving.server import Security, Server, serve
from runtime.uploads.jobs import UploadLimits
from runtime.uploads.routes import upload_routes
from runtime.uploads.service import UploadService
from tests.support.axe import serious_faults
from tests.support.browser import Browser, Page
from tests.support.nginx import missing_programs, nginx
from tests.support.waiting import wait_for
from tests.support.wire import make_broadcaster

MAX_BYTES = 8 * 1024**2
TIMEOUT_S = 60.0
PROBLEM = "document.getElementById('problem').textContent"


@contextmanager
def running(model: Path, folder: Path, **options: Any) -> Iterator[Server]:
    """Run a server that scans uploads."""
    started: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        service = UploadService(model=model, limits=UploadLimits(max_bytes=MAX_BYTES), parent=folder)
        async with (
            service as uploads,
            serve(make_broadcaster(), port=0, routes=upload_routes(uploads), **options) as server,
        ):
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    server, loop, stop = started.result(TIMEOUT_S)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the uploads."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def server(small_bundle: Path, folder: Path) -> Iterator[Server]:
    """Server of this module."""
    with running(small_bundle, folder) as server:
        yield server


def request(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request; return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


def wait_for_end(server: Server, job_id: str) -> dict[str, Any]:
    """Return the status of a scan once it has ended."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        status, _, body = request(server, "GET", f"/scans/{job_id}")
        assert status == 200
        job: dict[str, Any] = json.loads(body)
        if job["state"] not in ("waiting", "scanning"):
            return job
        time.sleep(0.1)
    raise AssertionError("the scan did not end")


def test_a_program_uploads_a_video(server: Server, face_video: Path) -> None:
    """Limits, upload, status, report to show and to save, deletion."""
    status, _, body = request(server, "GET", "/scans/")
    assert (status, json.loads(body)["max_bytes"]) == (200, MAX_BYTES)
    status, _, body = request(server, "POST", "/scans/?name=..%2F..%2Fmy%20clip.mp4", face_video.read_bytes())
    assert status == 201
    path = f"/scans/{json.loads(body)['id']}"
    assert wait_for_end(server, path.rpartition("/")[2])["state"] == "done"
    status, headers, body = request(server, "GET", f"{path}/report")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src" not in headers["content-security-policy"]
    assert b'<a href="../../scan">' in body
    status, headers, saved = request(server, "GET", f"{path}/report.html")
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''my%20clip-report.html"
    assert b"../../scan" not in saved
    status, _, body = request(server, "GET", f"{path}/report.json")
    assert json.loads(body)["videos"][0]["file"] == "my clip.mp4"
    assert request(server, "GET", f"{path}/other")[0] == 404
    assert request(server, "DELETE", path)[0] == 204
    assert request(server, "GET", f"{path}/report")[0] == 404


def test_refused_uploads(server: Server, folder: Path) -> None:
    """Empty, too large, of unknown length, from the page of another site, to another path."""
    assert request(server, "POST", "/scans/?name=a.mp4", b"")[::2] == (400, b"The file is empty.\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as client:
        head = (
            f"POST /scans/?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n"
        )
        client.sendall(head.encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as client:
        head = "POST /scans/?name=a.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert request(server, "POST", "/scans/?name=a.mp4", b"x", Origin="http://evil.example")[0] == 403
    assert request(server, "POST", "/scans/other", b"x")[0] == 404
    assert request(server, "DELETE", "/scans/unknown")[0] == 404
    assert list(folder.glob("*/*/*.mp4")) == []


def test_a_client_that_leaves_while_it_uploads(server: Server, folder: Path) -> None:
    """The beginning of its video is deleted at once."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as client:
        head = "POST /scans/?name=cut.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
        client.sendall(head.encode() + bytes(5000))
        wait_for(lambda: any(path.stat().st_size for path in folder.glob("*/*/cut.mp4")), TIMEOUT_S)
    wait_for(lambda: not list(folder.glob("*/*/cut.mp4")), TIMEOUT_S)
    wait_for(lambda: json.loads(request(server, "GET", "/scans/")[2])["active"] == 0, TIMEOUT_S)


def test_the_right_to_send_is_needed(small_bundle: Path, tmp_path: Path) -> None:
    """A token with only the right to read can neither upload nor see a scan; nothing of a body is stored."""
    reader, sender = "reader-0123456789abcdef", "sender-0123456789abcdef"
    tokens = TokenSet(parse_tokens(f"{reader} read\n{sender} send", Path("tokens")))
    with running(small_bundle, tmp_path, security=Security(tokens=tokens)) as server:
        for token, status in ((None, 401), (reader, 403), (sender, 200)):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            assert request(server, "GET", "/scans/", None, **headers)[0] == status
            if status != 200:
                assert request(server, "POST", "/scans/?name=a.mp4", b"x", **headers)[0] == status
                assert request(server, "DELETE", "/scans/x", None, **headers)[0] == status
        assert list(tmp_path.rglob("*.mp4")) == []


def choose(page: Page, path: Path) -> None:
    """Choose a file in the page."""
    root = page.command("DOM.getDocument")["root"]["nodeId"]
    node = page.command("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.command("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def drop(page: Page, name: str, text: str) -> None:
    """Drop a file onto the page."""
    page.evaluate(
        f"""(() => {{
            const data = new DataTransfer();
            data.items.add(new File([{json.dumps(text)}], {json.dumps(name)}));
            document.getElementById('drop').dispatchEvent(
                new DragEvent('drop', {{ dataTransfer: data, bubbles: true, cancelable: true }}));
        }})()"""
    )


def test_page(server: Server, browser: Browser, face_video: Path, tmp_path: Path) -> None:
    """A bad file is explained and another one can be chosen; then the report, whose timeline is clicked."""
    page = browser.open(f"{server.urls.dashboard}scan")
    try:
        page.wait_for("document.getElementById('limit').textContent === 'Up to 8.0 MiB.'")
        assert serious_faults(page) == []
        for name, content, words in (
            ("large.mp4", bytes(MAX_BYTES + 1), "the file has 8.0 MiB; at most 8.0 MiB are accepted"),
            ("empty.mp4", b"", "the file is empty"),
        ):
            (tmp_path / name).write_bytes(content)
            choose(page, tmp_path / name)
            page.wait_for(f"{PROBLEM}.startsWith('{name}: ') && {PROBLEM}.includes('{words}')")
        drop(page, "text.mp4", "no video")
        page.wait_for(f"{PROBLEM}.startsWith('text.mp4: not a video that can be read')")
        choose(page, face_video)
        page.wait_for("location.pathname.endsWith('/report') && document.querySelector('.verdict')")
        assert serious_faults(page) == []
        page.evaluate("document.querySelector('svg a').dispatchEvent(new MouseEvent('click'))")
        page.wait_for("getComputedStyle(document.querySelector('figure:target')).display === 'block'")
        shown = "[...document.querySelectorAll('.stills figure')].filter(f => f.offsetHeight).length"
        assert page.evaluate(shown) == 1
        assert page.console_errors == []
    finally:
        page.close()


def test_page_behind_a_proxy(
    small_bundle: Path,
    face_video: Path,
    browser: Browser,
    tmp_path: Path,
    skip_or_fail: Callable[[str], NoReturn],
) -> None:
    """Page, upload and report work under a sub-path, because all addresses are relative."""
    if missing := missing_programs():
        skip_or_fail(f"{missing} is not installed (Debian: apt install nginx-light openssl)")
    for name in ("uploads", "nginx"):
        (tmp_path / name).mkdir()
    security = Security(proxy=ProxyRules(base_path="/unmask", header="X-Forwarded-For"))
    with (
        running(small_bundle, tmp_path / "uploads", security=security) as server,
        nginx(tmp_path / "nginx", server.port) as (port, _),
    ):
        page = browser.open(f"http://127.0.0.1:{port}/unmask/scan")
        try:
            page.wait_for("document.getElementById('limit').textContent === 'Up to 8.0 MiB.'")
            choose(page, face_video)
            page.wait_for("location.pathname.startsWith('/unmask/scans/') && document.querySelector('nav')")
            assert page.evaluate("document.querySelector('nav a').pathname") == "/unmask/scan"
            assert page.console_errors == []
        finally:
            page.close()


def test_page_without_uploads(browser: Browser) -> None:
    """A server that takes no videos says how to start one that does."""
    with serve_in_thread(make_broadcaster(), port=0) as server:
        page = browser.open(f"{server.urls.dashboard}scan")
        try:
            page.wait_for(f"{PROBLEM}.includes('--scan-uploads')")
        finally:
            page.close()
