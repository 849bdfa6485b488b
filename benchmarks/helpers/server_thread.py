"""The real server on an event loop in a thread of its own, for benchmarks and tests.

with serve_in_thread(broadcaster, port=0) as server:
    print(server.urls.websocket)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from runtime.serving.broadcaster import Broadcaster
from runtime.serving.server import Server, serve


@contextmanager
def serve_in_thread(broadcaster: Broadcaster, **options: Any) -> Iterator[Server]:
    """Run the server while the context lasts.

    Args:
        broadcaster: Source of the messages.
        options: Passed to `serve`.

    Yields:
        Where the server listens.

    Raises:
        PortBusy, AddressUnusable, ValueError: As `serve` does.
    """
    started: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with serve(broadcaster, **options) as server:
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=main, name="server")
    thread.start()
    try:
        server, loop, stop = started.result()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()
