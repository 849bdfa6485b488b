"""Faults of clients and of what lies between them and the server; each row of the tables is one fault."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import InvalidStatus

from benchmarks.helpers.server_thread import serve_in_thread
from runtime.messages import SnapshotMessage, StreamMessage, encode
from runtime.pipeline.monitor import Monitor
from runtime.serving.server import serve
from streams.input.source import parse_source
from tests.support.aio import TIMEOUT_S, run, until
from tests.support.browser import Browser
from tests.support.wire import HELLO, make_broadcaster, verdict

ROOT = Path(__file__).parents[2]
OVERLAY = "document.querySelector('unmask-verdict').shadowRoot.textContent"


class Wall:
    """Wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1735689600.0

    def __call__(self) -> float:
        return self.now


# Each step is the change of the server's wall clock with one message.
STEPS = {
    "the clock is set back by 4 s": [0.01] * 20 + [-4.0] + [0.01] * 20,
    "the clock is set back by a day": [0.01] * 20 + [-86400.0] + [0.01] * 20,
    "the clock is set forward by 40 s": [0.01] * 20 + [40.0] + [0.01] * 20,
    "the clock is set back again and again": [0.01] * 10 + [-4.0, *[0.01] * 10] * 3,
    "the clock is set to and fro": [0.01] * 10 + [30.0, *[0.01] * 10, -30.0, *[0.01] * 10],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_clock_that_is_set_blanks_no_page(browser: Browser, steps: list[float]) -> None:
    """While verdicts arrive, dashboard and overlay show them whatever the server's wall clock does."""
    wall = Wall()
    broadcaster = make_broadcaster(wall=wall)
    broadcaster.publish(StreamMessage(stream="cam", state="live"))
    with serve_in_thread(broadcaster, port=0) as server, ExitStack() as stack:
        pages = [
            (browser.open(server.urls.overlay), f"{OVERLAY}.includes('Fake')"),
            (browser.open(server.urls.dashboard), "document.querySelector('.face[data-state=fake]')"),
        ]
        for page, _ in pages:
            stack.callback(page.close)
        broadcaster.publish(verdict())
        for page, shown in pages:
            page.wait_for(shown)
            # From now on, every moment at which the page shows no verdict is counted.
            page.evaluate(f"""globalThis.blank = 0;
                (function look() {{ blank += !({shown}); requestAnimationFrame(look) }})()""")
        for step in steps:
            wall.now += step
            seq = broadcaster.publish(verdict())
        pages[1][0].wait_for(f"Number(document.querySelector('#messages').textContent) >= {seq}")
        for page, shown in pages:
            page.wait_for(shown)
            assert page.evaluate("blank") == 0


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"protocol": 1, "version": "0.0.9"}, "unmask 0.0.9 sends messages of version 1"),
        ({"protocol": 3, "version": "9.1"}, "unmask 9.1 sends messages of version 3"),
        ({"protocol": None, "version": "7"}, "unmask 7 sends messages of version undefined"),
        ({"software": "another"}, "Another program answers"),
    ],
    ids=["an older protocol", "a newer protocol", "no protocol", "another program"],
)
def test_other_messages_are_not_shown(
    browser: Browser, tmp_path: Path, hello: dict[str, object], reason: str
) -> None:
    """A server that speaks another version is named, never shown as connected or with its verdicts."""
    changed = {**json.loads(encode(HELLO)), **hello}
    opening = json.dumps({name: value for name, value in changed.items() if value is not None})
    snapshot = SnapshotMessage(
        streams=(StreamMessage(stream="cam", state="live"),), verdicts=(verdict(),)
    ).stamp(0, 1.0)

    async def handle(connection: ServerConnection) -> None:
        for line in (opening, encode(snapshot).decode(), encode(verdict().stamp(1, 1.1)).decode()):
            await connection.send(line)
        await connection.wait_closed()

    with serve_in_thread(make_broadcaster(), port=0) as server, websocket_server(handle) as url:
        document = tmp_path / "page.html"
        document.write_text(f"""<!doctype html>
            <script type="module" src="http://127.0.0.1:{server.port}/overlay.js"></script>
            <unmask-verdict src="{url}"></unmask-verdict>""")
        page = browser.open(document.as_uri())
        page.wait_for("customElements.get('unmask-verdict')")
        page.wait_for(f"{OVERLAY}.includes({json.dumps(reason)})")
        assert "Fake" not in page.evaluate(OVERLAY)
        page.close()


@contextmanager
def websocket_server(handle: Callable[[ServerConnection], object]) -> Iterator[str]:
    """Run a WebSocket server on a thread; yield its address."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def main() -> None:
        async with serve_websockets(handle, "127.0.0.1", 0) as server:  # type: ignore[arg-type]
            ports.append(next(iter(server.sockets)).getsockname()[1])
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait(TIMEOUT_S)
    try:
        yield f"ws://127.0.0.1:{ports[0]}/"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class Proxy:
    """Reverse proxy that rewrites the head of each request as badly configured ones do."""

    def __init__(self, port: int, rewrite: Callable[[list[bytes]], list[bytes]]) -> None:
        self._target = port
        self._rewrite = rewrite
        self._handlers: set[asyncio.Task[None] | None] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The event loop keeps only weak references to its tasks.
        task = asyncio.current_task()
        self._handlers.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._handlers.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            upstream, sending = await asyncio.open_connection("127.0.0.1", self._target)
            with closing(sending):
                sending.write(b"\r\n".join(self._rewrite(head.strip().split(b"\r\n"))) + b"\r\n\r\n")
                while data := await upstream.read(65536):
                    writer.write(data)


def without(*names: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Return a rewriting that removes headers."""
    return lambda lines: [line for line in lines if line.partition(b":")[0].lower() not in names]


def with_host(host: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """Return a rewriting that replaces the Host header."""
    return lambda lines: [lines[0], b"Host: " + host, *without(b"host")(lines[1:])]


PROXIES = {
    "a proxy that sends its own Host": (with_host(b"127.0.0.1:1"), "may not connect", "origin"),
    "a proxy that sends no Host": (without(b"host"), "may not connect", "origin"),
    "a proxy that removes Upgrade": (without(b"upgrade"), "a proxy in between does not pass on", "proxy"),
}


@pytest.mark.parametrize(("rewrite", "shown", "cause"), PROXIES.values(), ids=PROXIES)
def test_a_refused_page_shows_the_reason(
    browser: Browser,
    caplog: pytest.LogCaptureFixture,
    rewrite: Callable[[list[bytes]], list[bytes]],
    shown: str,
    cause: str,
) -> None:
    """The dashboard shows the reason instead of connecting for ever; the server logs it once."""
    runner, stop = asyncio.Runner(), asyncio.Event()
    ports: list[int] = []
    started = threading.Event()

    async def proxy(target: int) -> None:
        async with await asyncio.start_server(Proxy(target, rewrite), "127.0.0.1", 0) as running:
            ports.append(running.sockets[0].getsockname()[1])
            started.set()
            await stop.wait()
        # The browser may still hold connections open, and one that has just been accepted gets its task, and
        # this one its own for the handler, a few iterations later.
        for _ in range(3):
            await asyncio.sleep(0)
        while connections := asyncio.all_tasks() - {asyncio.current_task()}:
            # A task that is cancelled before it has begun does not close its connection.
            await asyncio.sleep(0)
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            for _ in range(3):
                await asyncio.sleep(0)

    with serve_in_thread(make_broadcaster(), port=0) as server:
        thread = threading.Thread(target=lambda: runner.run(proxy(server.port)))
        thread.start()
        started.wait(TIMEOUT_S)
        page = browser.open(f"http://127.0.0.1:{ports[0]}/")
        page.wait_for(f"document.querySelector('#empty')?.textContent.includes({shown!r})")
        assert page.evaluate("document.querySelector('#connection').textContent") == "No connection"
        # Several further attempts are made and refused.
        page.wait_for("performance.now() > 2000")
        lines = [record for record in caplog.records if "a connection was refused" in record.getMessage()]
        assert len(lines) == 1
        page.close()
        runner.get_loop().call_soon_threadsafe(stop.set)
        thread.join()
    runner.close()
    assert any(f"for this reason: {cause}" in record.getMessage() for record in caplog.records)


def test_more_clients_than_allowed_get_503(caplog: pytest.LogCaptureFixture) -> None:
    """Further clients are refused with HTTP 503 and one log line; pages and the others go on."""
    caplog.set_level(logging.WARNING)

    async def scenario() -> None:
        broadcaster = make_broadcaster()
        async with serve(broadcaster, port=0, max_clients=2) as server:
            clients = [await connect(server.urls.websocket, proxy=None) for _ in range(2)]
            await until(lambda: broadcaster.clients == 2)
            for _ in range(5):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(server.urls.websocket, proxy=None)
                assert refused.value.response.status_code == 503
                assert b"--max-clients" in (refused.value.response.body or b"")
            broadcaster.publish(verdict())
            for client in clients:
                assert [json.loads(await client.recv())["type"] for _ in range(3)][-1] == "verdict"
            await clients.pop().close()
            await until(lambda: broadcaster.clients == 1)
            clients.append(await connect(server.urls.websocket, proxy=None))
            for client in clients:
                await client.close()

    run(scenario)
    assert [record.getMessage() for record in caplog.records] == [
        "a connection was refused: 2 clients are connected, which is the maximum; "
        "raise --max-clients, and the limit on open files (ulimit -n) if it is lower.",
        "4 more connections were refused for this reason: clients",
    ]


FLOOD = """
import asyncio, json, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from runtime.serving.server import serve
from tests.support.wire import make_broadcaster

async def main():
    async with serve(make_broadcaster(), port=0) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        open("/dev/null").close()  # the rest of the program can still open files

asyncio.run(main())
"""


LIMITS = (120, 256)
REQUESTS = (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")


@dataclass(frozen=True)
class Flooded:
    """Answer to the last of far too many connections, and how the program ended."""

    answer: bytes
    returncode: int
    errors: str


def flood(limit: int, request: bytes) -> Flooded:
    """Open twice as many connections to a server as it may open files, and then let it end."""
    with ExitStack() as stack:
        program = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", FLOOD.format(limit=limit)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        assert program.stdin is not None
        assert program.stdout is not None
        port = int(program.stdout.readline())
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * limit)]
        for raw in sockets:
            raw.settimeout(TIMEOUT_S)
            raw.connect(("127.0.0.1", port))
            raw.sendall(request)
        answer = sockets[-1].recv(65536)
        _, errors = program.communicate("\n", timeout=TIMEOUT_S)
        return Flooded(answer, program.returncode, errors)


@pytest.fixture(scope="module")
def flooded() -> Iterator[dict[tuple[int, bytes], Future[Flooded]]]:
    """Every flood, at the same time: each takes seconds, and hardly any CPU time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    floods = list(itertools.product(LIMITS, REQUESTS))
    with ThreadPoolExecutor(len(floods)) as pool:
        yield {one: pool.submit(flood, *one) for one in floods}
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_more_connections_than_files_are_refused(
    limit: int, request_: bytes, flooded: dict[tuple[int, bytes], Future[Flooded]]
) -> None:
    """Far more sockets than the limit on open files neither fill the log nor stop the program."""
    done = flooded[limit, request_].result()
    # Without a request the others keep their connections, so that the last one is beyond every limit.
    expected = (b"HTTP/1.1 503", b"HTTP/1.1 200") if request_ else b"HTTP/1.1 503"
    assert done.answer.startswith(expected)
    assert done.returncode == 0
    assert "Traceback" not in done.errors
    assert len(done.errors.splitlines()) <= 2


def test_a_monitor_that_stops_slowly_leaves_the_event_loop_free() -> None:
    """While the threads of a source that hangs are waited for, the event loop goes on."""
    hanging = threading.Event()

    def new_analysis() -> object:
        hanging.wait(TIMEOUT_S)
        raise RuntimeError("stopped")

    async def scenario() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        async with Monitor(
            [parse_source("demo")],
            sample_hz=8.0,
            new_analysis=new_analysis,  # type: ignore[arg-type]
            publish=lambda _: None,
        ):
            before = turns
        # It waited for its threads, which never end by themselves, for much longer than a few turns.
        assert turns > before + 100
        counting.cancel()
        hanging.set()

    run(scenario)
