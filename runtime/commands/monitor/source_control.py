"""Changes of the watched sources while the program runs: by clients, and by SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec

from runtime.client_messages import AddSource, RemoveSource, RenameSource
from runtime.commands.options import UserError
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.commands.setup.sources import check_source, check_sources
from runtime.config.changes import find_changes
from runtime.config.model import MonitorConfig, SourceConfig, ThresholdsConfig
from runtime.config.sources import WatchedSource, watch
from runtime.errors import ConfigInvalid, StreamUnknown, UnmaskError
from runtime.messages import Thresholds
from runtime.pipeline.monitor import STOP_TIMEOUT_S, AnalysisFactory, Monitor
from runtime.serving.server import Server
from runtime.serving.session import ClientSession, Commands
from streams.errors import SourceError

logger = logging.getLogger(__name__)

# Largest number of streams to which clients may add one.
MAX_STREAMS = 256


class SourceControl:
    """Changes of the watched sources, one after the other.

    Args:
        monitor: The monitor, to which the sources are added.
        options: Options with which the program starts.
        analyses: Factory of the analyses.
        thresholds: Thresholds in `hello`; a stream with others publishes its own.
    """

    def __init__(
        self, monitor: Monitor, options: MonitorOptions, analyses: AnalysisFactory, thresholds: Thresholds
    ) -> None:
        self._hello_thresholds = thresholds
        self._monitor = monitor
        self._options = options
        self._analyses = analyses
        self._lock = asyncio.Lock()
        for source in options.sources:
            self._add(source)

    @property
    def commands(self) -> Commands:
        """Handlers of the messages of clients that change sources."""
        return {
            AddSource: self._handle_add,
            RemoveSource: self._handle_remove,
            RenameSource: self._handle_rename,
        }

    async def reload(self, setup: MonitorSetup, server: Server) -> None:
        """Read the configuration again and make its changes; if it is wrong, log it and change nothing.

        Sources that clients have added stay.

        Args:
            setup: Where the options come from.
            server: The running server, which gets the new tokens.
        """
        async with self._lock:
            try:
                options = setup.load("needed")
                check_sources(options, self._analyses.bundle)
            except (UnmaskError, UserError) as error:
                logger.warning("%s; the configuration before it stays in use", error)
                return
            except Exception:
                logger.exception("internal error; the configuration before it stays in use")
                return
            before, self._options = self._options, options
            if server.gate is not None and (server.gate.tokens is None) == (options.security.tokens is None):
                server.gate.tokens = options.security.tokens
                if server.gate.tokens is not None:
                    logger.info("tokens loaded again")
            with self._monitor.changing():
                await self._apply(before, options, from_file=setup.file is not None)
            for key in _needing_restart(before.config, options.config):
                logger.warning("%s has changed; restart unmask to use it", key)

    async def _apply(self, before: MonitorOptions, after: MonitorOptions, *, from_file: bool) -> None:
        changes = find_changes(before.sources, after.sources)
        for name in changes.removed:
            await self._change(name, self._remove(name))
        for name, new_name in changes.renamed:
            await self._change(name, self._rename(name, new_name))
        for source in (*changes.replaced, *changes.added):
            await self._change(source.source.name, self._replace(source))
        counts = [len(part) for part in (changes.added, changes.removed, changes.renamed, changes.replaced)]
        # Without a file, only sources of the command line that exist by now can be new.
        if from_file or any(counts):
            subject = "configuration" if from_file else "sources"
            logger.info(
                "%s loaded again: %d sources added, %d removed, %d renamed, %d changed", subject, *counts
            )

    async def _change(self, name: str, change: Awaitable[None]) -> None:
        """Make one change; a stream that a client has removed or renamed stays as it is."""
        try:
            await change
        except UnmaskError as error:
            logger.warning("%s: %s", name, error)

    async def _handle_add(self, message: AddSource, session: ClientSession) -> None:
        session.identity.require("control")
        async with self._lock:
            if len(self._monitor.names) >= MAX_STREAMS:
                raise ConfigInvalid([f"{MAX_STREAMS} streams are watched, the maximum; remove one first"])
            item = SourceConfig(
                address=message.address,
                name=message.stream,
                transport=message.transport,
                rate=message.rate_hz,
            )
            try:
                thresholds = ThresholdsConfig(real=message.threshold_real, fake=message.threshold_fake)
                item = msgspec.structs.replace(item, thresholds=thresholds)
                source = watch(item, self._options.config)
            except ValueError as error:
                if isinstance(error, SourceError):
                    raise
                raise ConfigInvalid([str(error)]) from None
            if source.source.kind == "pipe":
                raise ConfigInvalid(["standard input can be watched from the start only"])
            check_source(source, self._analyses.bundle)
            self._add(source)
            logger.info("%s: added by %s", source.source.name, session.identity.name)

    async def _handle_remove(self, message: RemoveSource, session: ClientSession) -> None:
        session.identity.require("control")
        async with self._lock:
            await self._remove(message.stream)
            logger.info("%s: removed by %s", message.stream, session.identity.name)

    async def _handle_rename(self, message: RenameSource, session: ClientSession) -> None:
        session.identity.require("control")
        async with self._lock:
            await self._rename(message.stream, message.name)
            logger.info("%s: renamed to %s by %s", message.stream, message.name, session.identity.name)

    def _add(self, source: WatchedSource) -> None:
        thresholds = self._analyses.thresholds(source)
        self._monitor.add(
            source.source,
            self._analyses.factory(source),
            thresholds=None if thresholds == self._hello_thresholds else thresholds,
        )

    async def _remove(self, name: str) -> None:
        thread = self._monitor.remove(name)
        # The source, such as a webcam, may be opened again only when it is closed.
        await asyncio.to_thread(thread.join, STOP_TIMEOUT_S)

    async def _rename(self, name: str, new_name: str) -> None:
        self._monitor.rename(name, new_name)

    async def _replace(self, source: WatchedSource) -> None:
        with contextlib.suppress(StreamUnknown):
            await self._remove(source.source.name)
        self._add(source)


def _needing_restart(before: MonitorConfig, after: MonitorConfig) -> list[str]:
    """Return the keys that have changed but are only used at the start."""
    keys = [
        key
        for key in ("model", "engine", "jobs", "duration", "outputs", "evidence")
        if getattr(before, key) != getattr(after, key)
    ]
    old: Mapping[str, Any] = msgspec.structs.asdict(before.server)
    new: Mapping[str, Any] = msgspec.structs.asdict(after.server)
    tokens_appeared = (old["token_file"] is None) != (new["token_file"] is None)
    changed = [key for key in old if old[key] != new[key] and (key != "token_file" or tokens_appeared)]
    return [*keys, *(f"server.{key}" for key in changed)]
