"""Setup, checks and control of sources, for `monitor --jobs` and `fleet`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.client_messages import AddSource, RemoveSource, RenameSource
from runtime.commands.monitor.run import Control, MonitorRun, Receivers, RunSetup, Watching, thresholds_of
from runtime.commands.options import UserError
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.config.sources import WatchedSource
from runtime.errors import ConfigInvalid, UnmaskError
from runtime.fleet.cameras.actors import find_slots
from runtime.fleet.cameras.head import FleetMonitor
from runtime.fleet.cameras.worker import FleetSetup
from runtime.fleet.cameras.workers import Machines, Slot, Workers
from runtime.fleet.cluster import Node, own_niceness
from runtime.messages import Thresholds
from runtime.model.bundle import Bundle
from runtime.outputs.standard_error import StandardError
from runtime.serving.server import Server
from runtime.serving.session import ClientSession, Commands
from runtime.version import version
from streams.input.source import Source

logger = logging.getLogger(__name__)


def worker_setup(
    options: MonitorOptions, bundle: Bundle, *, threads: int | None, cores_per_camera: float | None
) -> FleetSetup:
    """Return what each worker needs.

    Args:
        options: The options of the run.
        bundle: The model.
        threads: CPU threads of an engine; None for all cores.
        cores_per_camera: Cores that a camera needs; None to measure it.
    """
    return FleetSetup(
        folder=Path.cwd(),
        model=options.config.model,
        digest=bundle.digest,
        version=version(),
        engine=options.config.engine,
        threads=threads,
        cores_per_camera=cores_per_camera,
        thresholds=thresholds_of(options, bundle),
        niceness=own_niceness(),
    )


def find_problems(
    options: MonitorOptions, *, watches: Callable[[Source], bool], source: str, option: str
) -> list[str]:
    """Return the settings that workers cannot follow, a line each.

    Args:
        options: The configuration.
        watches: Returns whether they can watch a source.
        source: Reason and advice for a source that they cannot watch.
        option: Reason and advice for an option that needs the frames as they were received.
    """
    config = options.config
    given = {
        "evidence": config.evidence,
        "outputs.annotate": config.outputs.annotate,
    }
    return [
        *(f"{one.source.name}: {source}" for one in options.sources if not watches(one.source)),
        *(f"{key}: {option}" for key, value in given.items() if value),
    ]


def run_with_workers(
    setup: MonitorSetup,
    options: MonitorOptions,
    bundle: Bundle,
    output: StandardError,
    *,
    machines: Machines,
    workers: Workers,
    engine: str,
    slots: Callable[[Sequence[Node], str], list[Slot]] = find_slots,
) -> int:
    """Let workers watch the sources and serve the verdicts until the end; return the exit code.

    Args:
        setup: Where the options come from; SIGHUP reads the tokens again.
        options: The options.
        bundle: The model.
        output: Standard error.
        machines: Where the workers run.
        workers: The workers.
        engine: Description of their engines.
        slots: Function that returns the places of workers.
    """
    thresholds = thresholds_of(options, bundle)

    def watch(receivers: Receivers) -> tuple[Watching, Control]:
        monitor = FleetMonitor(
            machines,
            workers,
            options.sources,
            engine=options.config.engine,
            thresholds=own_thresholds(options.sources, bundle, thresholds),
            publish=receivers.publish,
            previews=receivers.previews,
            on_change=receivers.on_change,
            slots=slots,
        )
        return monitor, WorkersControl()

    run = RunSetup(
        setup=setup,
        options=options,
        bundle=bundle,
        thresholds=thresholds,
        engine=lambda: engine,
        watch=watch,
    )
    return asyncio.run(MonitorRun(run, output).serve())


def own_thresholds(
    sources: Sequence[WatchedSource], bundle: Bundle, common: Thresholds
) -> dict[str, Thresholds]:
    """Return the thresholds of the sources that have others than those of all.

    Args:
        sources: The sources.
        bundle: The model.
        common: Thresholds in `hello`.
    """
    own: dict[str, Thresholds] = {}
    model = bundle.calibration
    for source in sources:
        real, fake = source.thresholds_or(model.threshold_real, model.threshold_fake)
        thresholds = Thresholds(real=real, fake=fake)
        if thresholds != common:
            own[source.source.name] = thresholds
    return own


class WorkersControl:
    """Changes of the sources: none while other processes watch them."""

    @property
    def commands(self) -> Commands:
        """Handlers of the messages of clients, which are refused."""
        return {AddSource: self._refuse, RemoveSource: self._refuse, RenameSource: self._refuse}

    async def reload(self, setup: MonitorSetup, server: Server) -> None:
        """Read the tokens again; the sources stay as they are."""
        try:
            options = setup.load("needed")
        except (UnmaskError, UserError) as error:
            logger.warning("%s; the configuration before it stays in use", error)
            return
        except Exception:
            logger.exception("internal error; the configuration before it stays in use")
            return
        if server.gate is not None and server.gate.tokens is not None and options.security.tokens is not None:
            server.gate.tokens = options.security.tokens
            logger.info("tokens loaded again")
        if setup.file is not None:
            logger.warning("restart unmask to use changes of %s", setup.file)

    async def _refuse(self, message: object, session: ClientSession) -> None:
        session.identity.require("control")
        raise ConfigInvalid(
            ["sources do not change in a fleet or with --jobs; change the configuration and restart unmask"]
        )
