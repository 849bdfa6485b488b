"""WebSocket subscribers in a process of their own, some of them slow readers.

    with Subscribers("ws://127.0.0.1:8765/ws", fast=100, slow=5) as subscribers:
        ...                                  # publish
        received = subscribers.collect()
    for arrivals in received.fast:           # one array of (seq, seconds on time.monotonic) each
        ...

`time.monotonic` is one clock for all processes of the system, so times of both processes can be compared.
Fast subscribers note the time at which bytes arrive and decode them later. A thousand of them in one process
then measure the server, not their own decoding.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import time
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.uri import WebSocketURI, parse_uri

from benchmarks.harness.errors import HelperFailed

START_S = 60.0
# Time within which a subscriber has to join.
JOIN_S = 20.0
# Small buffers, so that messages for a slow reader wait in the server and not in the kernel or the library.
SLOW_BUFFER_BYTES = 4096
SLOW_QUEUE = 1
# Time from an arrival to its decoding, in which the other subscribers' copies of the message arrive.
DECODE_S = 0.05

Arrivals = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Received:
    """Messages that the subscribers received.

    Args:
        fast: For each fast subscriber float64 `(M, 2)`: `seq` and time of arrival, seconds on
            `time.monotonic`.
        slow: The same for each slow reader.
        cpu_s: CPU seconds of all subscribers together.
    """

    fast: list[NDArray[np.float64]]
    slow: list[NDArray[np.float64]]
    cpu_s: float


class Subscribers:
    """Subscribers of one server in another process. A context manager; entering waits until all have joined.

    Args:
        url: WebSocket URL of the server.
        fast: Number of subscribers that read everything.
        slow: Number of slow readers, which pause after each message and have small buffers.
        pause_s: Length of that pause.

    Raises:
        HelperFailed: On entering or collecting: not all could join, or their process failed.
    """

    def __init__(self, url: str, *, fast: int = 0, slow: int = 0, pause_s: float = 0.5) -> None:
        # Spawned, not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._theirs = theirs
        self._process = context.Process(
            target=_main, args=(theirs, url, fast, slow, pause_s), name="subscribers", daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        # With this copy closed, the end of the other process closes the pipe.
        self._theirs.close()
        try:
            self._expect("ready", START_S)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def collect(self) -> Received:
        """Disconnect all subscribers and return the messages received since they joined."""
        self._pipe.send("stop")
        received = self._expect("received", START_S)
        assert isinstance(received, Received)
        return received

    def _expect(self, kind: str, timeout_s: float) -> Any:
        try:
            if not self._pipe.poll(timeout_s):
                raise HelperFailed("subscribers", f"no answer for {timeout_s:g} s")
            received, content = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise HelperFailed("subscribers", "their process ended") from error
        if received != kind:
            raise HelperFailed("subscribers", str(content))
        return content

    def _end(self) -> None:
        self._pipe.close()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _main(pipe: Connection, url: str, fast: int, slow: int, pause_s: float) -> None:
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            pipe.send(asyncio.run(_subscribe(pipe, url, fast, slow, pause_s)))
    except KeyboardInterrupt:
        # Ctrl-C reaches every process of the terminal; the main process reports it.
        return


async def _subscribe(pipe: Connection, url: str, fast: int, slow: int, pause_s: float) -> tuple[str, Any]:
    loop = asyncio.get_running_loop()
    arrivals: list[Arrivals] = [[] for _ in range(fast + slow)]
    joined = [loop.create_future() for _ in arrivals]
    tasks = [
        asyncio.create_task(
            _read(url, arrivals[index], joined[index])
            if index < fast
            else _read_slowly(url, arrivals[index], joined[index], pause_s)
        )
        for index in range(fast + slow)
    ]
    problem = await _first_problem(tasks, asyncio.gather(*joined), JOIN_S)
    if problem is not None:
        return "failed", problem
    cpu_s = time.process_time()
    pipe.send(("ready", None))
    # Ends with the other process too: reading from a closed pipe fails at once.
    stop = loop.run_in_executor(None, _wait, pipe)
    problem = await _first_problem(tasks, stop, None)
    cpu_s = time.process_time() - cpu_s
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if problem is not None:
        return "failed", problem
    arrays = [np.array(each, np.float64).reshape(-1, 2) for each in arrivals]
    return "received", Received(fast=arrays[:fast], slow=arrays[fast:], cpu_s=cpu_s)


async def _first_problem(
    tasks: list[asyncio.Task[None]], until: asyncio.Future[Any], timeout_s: float | None
) -> str | None:
    """Wait for `until`; return the problem if a subscriber failed or the time ran out first."""
    done, _ = await asyncio.wait({*tasks, until}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task in done:
            error = task.exception()
            return "a subscriber was disconnected" if error is None else str(error) or type(error).__name__
    return None if until in done else "not all could join"


def _wait(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        pipe.recv()


async def _read(url: str, arrivals: Arrivals, joined: asyncio.Future[None]) -> None:
    uri = parse_uri(url)
    reader = _Reader(uri, joined)
    await asyncio.get_running_loop().create_connection(lambda: reader, uri.host, uri.port)
    try:
        await reader.disconnected.wait()
        if (error := reader.protocol.handshake_exc) is not None:
            raise error
    finally:
        reader.close()
        arrivals.extend(reader.arrivals)


class _Reader(asyncio.Protocol):
    """Fast subscriber, which notes the time of what arrives at once and decodes it between two messages."""

    def __init__(self, uri: WebSocketURI, joined: asyncio.Future[None]) -> None:
        self.arrivals: Arrivals = []
        self.disconnected = asyncio.Event()
        self.protocol = ClientProtocol(uri)
        self._joined = joined
        self._undecoded: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.protocol.send_request(self.protocol.connect())
        self._send()

    def data_received(self, data: bytes) -> None:
        self._undecoded.append((time.monotonic(), data))
        if not self._joined.done():
            self._decode()
        elif len(self._undecoded) == 1:
            # Later, so that decoding does not delay the arrivals of the other subscribers; and not all at the
            # next ping, because decoding for all of them takes half a second then.
            asyncio.get_running_loop().call_later(DECODE_S, self._decode)

    def connection_lost(self, exc: Exception | None) -> None:
        self.disconnected.set()

    def close(self) -> None:
        """Disconnect and decode what has arrived."""
        self._decode()
        self._transport.abort()

    def _decode(self) -> None:
        for arrived, data in self._undecoded:
            self.protocol.receive_data(data)
            for event in self.protocol.events_received():
                self._note(event, arrived)
        self._undecoded.clear()
        self._send()

    def _note(self, event: Any, arrived: float) -> None:
        if not isinstance(event, Frame) or event.opcode is not Opcode.TEXT:
            return
        message = json.loads(bytes(event.data))
        if message["type"] == "snapshot":
            _join(self._joined)
        elif message["type"] != "hello":
            self.arrivals.append((message["seq"], arrived))

    def _send(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self._transport.write(data)


async def _read_slowly(url: str, arrivals: Arrivals, joined: asyncio.Future[None], pause_s: float) -> None:
    # The server disconnects a reader that answers no pings, which wait behind the messages.
    while True:
        with suppress(ConnectionClosed):
            await _read_until_closed(url, arrivals, joined, pause_s)
        await asyncio.sleep(pause_s)


async def _read_until_closed(
    url: str, arrivals: Arrivals, joined: asyncio.Future[None], pause_s: float
) -> None:
    parts = urllib.parse.urlsplit(url)
    raw = socket.socket(socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (parts.hostname, parts.port))
    async with connect(
        url,
        sock=raw,
        proxy=None,
        compression=None,
        max_queue=SLOW_QUEUE,
        ping_interval=None,
        close_timeout=0.2,
    ) as connection:
        async for text in connection:
            message = json.loads(text)
            if message["type"] == "snapshot":
                _join(joined)
            elif message["type"] != "hello":
                arrivals.append((message["seq"], time.monotonic()))
                await asyncio.sleep(pause_s)


def _join(joined: asyncio.Future[None]) -> None:
    if not joined.done():
        joined.set_result(None)
