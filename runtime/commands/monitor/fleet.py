"""The command `unmask fleet`: the run of `monitor`, whose sources are watched by workers on a Ray cluster."""

from __future__ import annotations

from pathlib import Path

# Before any module that loads OpenCV; see `runtime.commands.monitor.run`.
import av  # noqa: F401

from runtime.commands.monitor.run import load_options
from runtime.commands.monitor.workers import find_problems, run_with_workers, worker_setup
from runtime.commands.options import UserError
from runtime.commands.setup.options import MonitorSetup
from runtime.commands.setup.sources import check_sources, load_model
from runtime.config.reading import Settings
from runtime.fleet.cameras.actors import CameraActors
from runtime.fleet.cluster import open_cluster
from runtime.outputs.standard_error import StandardError

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
    problems = find_problems(
        options,
        watches=lambda source: source.kind in KINDS and not source.listens,
        source="a fleet watches network addresses, files and the demo only; "
        "use `unmask monitor` on the machine of this source",
        option="not possible in a fleet; use `unmask monitor` for it",
    )
    if options.config.server.scan_uploads:
        problems.append("server.scan_uploads: not possible in a fleet; use `unmask monitor` for it")
    if not options.sources:
        problems.append("there is no source; add a table [[sources]] for each camera")
    if problems:
        raise UserError(*(f"{file}: {problem}" for problem in problems))
    bundle = load_model(options)
    check_sources(options, bundle)
    config = options.config
    setup_of_workers = worker_setup(
        options, bundle, threads=None, cores_per_camera=config.fleet.cores_per_camera
    )
    with StandardError() as output, open_cluster(address or config.fleet.address) as cluster:
        return run_with_workers(
            setup,
            options,
            bundle,
            output,
            machines=cluster,
            workers=CameraActors(cluster, setup_of_workers),
            engine=f"workers on the Ray cluster {cluster.address} ({config.engine})",
        )
