"""The command `unmask fleet`: the run of `monitor`, whose sources are watched by workers on a Ray cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

# Before any module that loads OpenCV; see `runtime.commands.monitor.run`.
import av  # noqa: F401

from runtime.client_messages import AddSource, RemoveSource, RenameSource
from runtime.commands.monitor.run import (
    Control,
    MonitorRun,
    Receivers,
    RunSetup,
    Watching,
    load_options,
    thresholds_of,
)
from runtime.commands.options import UserError
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.commands.setup.sources import check_sources
from runtime.config.reading import Settings
from runtime.config.sources import WatchedSource
from runtime.errors import ConfigInvalid
from runtime.fleet.cameras.actors import CameraActors
from runtime.fleet.cameras.head import FleetMonitor
from runtime.fleet.cameras.worker import FleetSetup
from runtime.fleet.cluster import open_cluster, own_niceness
from runtime.messages import Thresholds
from runtime.model.bundle import Bundle, load_bundle
from runtime.outputs.standard_error import StandardError
from runtime.serving.server import Server
from runtime.serving.session import ClientSession, Commands
from runtime.version import version

logger = logging.getLogger(__name__)

KINDS = ("rtsp", "url", "file", "demo")
"""Sources that every machine can open; a webcam, a screen or a pipe belongs to one."""


def run_fleet(file: Path, address: str | None) -> int:
    """Watch the sources of a file on a cluster and serve the verdicts, until a signal or their end.

    Args:
        file: Configuration file of `monitor`.
        address: Address of the cluster; None for that of the file.

    Returns:
        Exit code.

    Raises:
        UnmaskError: The configuration, the model, the cluster or an output cannot be used.
        UserError: A value cannot be used.
    """
    setup = MonitorSetup(file=file, given=Settings(values={}))
    options = load_options(setup)
    check_options(file, options)
    bundle = load_bundle(options.config.model)
    check_sources(options, bundle)
    config, thresholds = options.config, thresholds_of(options, bundle)
    worker_setup = FleetSetup(
        folder=Path.cwd(),
        model=config.model,
        digest=bundle.digest,
        version=version(),
        engine=config.engine,
        threads=None,
        cores_per_camera=config.fleet.cores_per_camera,
        thresholds=thresholds,
        niceness=own_niceness(),
    )
    with StandardError() as output, open_cluster(address or config.fleet.address) as cluster:

        def watch(receivers: Receivers) -> tuple[Watching, Control]:
            monitor = FleetMonitor(
                cluster,
                CameraActors(cluster, worker_setup),
                options.sources,
                engine=config.engine,
                thresholds=own_thresholds(options.sources, bundle, thresholds),
                publish=receivers.publish,
                on_change=receivers.on_change,
            )
            return monitor, FleetControl()

        run = RunSetup(
            setup=setup,
            options=options,
            bundle=bundle,
            thresholds=thresholds,
            engine=lambda: f"workers on the Ray cluster {cluster.address} ({config.engine})",
            watch=watch,
        )
        return asyncio.run(MonitorRun(run, output).serve())


def check_options(file: Path, options: MonitorOptions) -> None:
    """Check that a fleet can do what a configuration asks for.

    Args:
        file: The configuration file.
        options: Its content.

    Raises:
        UserError: It cannot; one line for each reason.
    """
    config = options.config
    problems = [
        f"{file}: {source.source.name}: a fleet watches network addresses, files and the demo only; "
        "use `unmask monitor` on the machine of this source"
        for source in options.sources
        if source.source.kind not in KINDS or source.source.listens
    ]
    if not options.sources:
        problems.append(f"{file}: there is no source; add a table [[sources]] for each camera")
    for key, given in (
        ("evidence", config.evidence),
        ("outputs.annotate", config.outputs.annotate),
        ("server.scan_uploads", config.server.scan_uploads),
    ):
        if given:
            problems.append(f"{file}: {key}: not possible in a fleet; use `unmask monitor` for it")
    if problems:
        raise UserError(*problems)


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
    for source in sources:
        thresholds = Thresholds(
            real=bundle.calibration.threshold_real
            if source.thresholds.real is None
            else source.thresholds.real,
            fake=bundle.calibration.threshold_fake
            if source.thresholds.fake is None
            else source.thresholds.fake,
        )
        if thresholds != common:
            own[source.source.name] = thresholds
    return own


class FleetControl:
    """Changes of the sources of a fleet: none while it runs."""

    @property
    def commands(self) -> Commands:
        """Handlers of the messages of clients, which are refused."""
        return {AddSource: self._refuse, RemoveSource: self._refuse, RenameSource: self._refuse}

    async def reload(self, setup: MonitorSetup, server: Server) -> None:
        """Read the tokens again; the sources stay as they are."""
        try:
            options = setup.load("needed")
        except (ConfigInvalid, UserError) as error:
            logger.warning("%s; the configuration before it stays in use", error)
            return
        if server.gate is not None and (server.gate.tokens is None) == (options.security.tokens is None):
            server.gate.tokens = options.security.tokens
        logger.warning("tokens loaded again; restart the fleet to use other changes of the file")

    async def _refuse(self, message: object, session: ClientSession) -> None:
        session.identity.require("control")
        raise ConfigInvalid(["the sources of a fleet are those of its file; change it and restart the fleet"])
