"""Asynchronous scenarios in ordinary tests, with a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

# Far longer than any scenario takes on a slow machine; a test that reaches it has failed.
TIMEOUT_S = 30


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous scenario on a new event loop."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await scenario()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other tasks or threads bring about."""
    while not condition():
        await asyncio.sleep(0.005)
