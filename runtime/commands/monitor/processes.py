"""The run of `unmask monitor --jobs N`: sources are watched by processes of this machine."""

from __future__ import annotations

from runtime.commands.monitor.workers import find_problems, run_with_workers, worker_setup
from runtime.commands.options import UserError
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.commands.setup.sources import check_sources
from runtime.engines.cpu import usable_cores
from runtime.fleet.cameras.processes import CameraProcesses, ThisMachine
from runtime.fleet.cameras.workers import Slot
from runtime.model.bundle import Bundle
from runtime.outputs.standard_error import StandardError


def find_jobs_problems(options: MonitorOptions) -> list[str]:
    """Return what several processes cannot do, a line each.

    Args:
        options: The options.
    """
    problems = find_problems(
        options,
        watches=lambda source: source.kind not in ("pipe", "push") and not source.listens,
        source="only one process can read standard input, browser, whip: and addresses that listen; "
        "leave out --jobs",
        option="needs the frames, which stay in the processes of --jobs; leave one of them out",
    )
    if not options.sources:
        problems.append(
            "there is no source that the processes of --jobs can watch; name one, or leave out --jobs"
        )
    return problems


def run_with_processes(setup: MonitorSetup, options: MonitorOptions, bundle: Bundle) -> int:
    """Watch sources with several processes, at most one for each source, and serve the verdicts.

    Args:
        setup: Where the options come from; SIGHUP reads the tokens again.
        options: The options.
        bundle: The model.

    Returns:
        Exit code.

    Raises:
        UnmaskError: The configuration, the model, the engine, the address or an output cannot be used.
        UserError: Several processes cannot do what is asked for; one line for each reason.
    """
    if problems := find_jobs_problems(options):
        raise UserError(*problems)
    check_sources(options, bundle)
    jobs = min(options.config.jobs, len(options.sources))
    cores = max(1, usable_cores() // jobs)
    workers = worker_setup(options, bundle, threads=cores, cores_per_camera=None)
    slots = [Slot(ThisMachine.ID, index, cores, gpu=False) for index in range(jobs)]
    with StandardError() as output:
        return run_with_workers(
            setup,
            options,
            bundle,
            output,
            machines=ThisMachine(jobs * cores),
            workers=CameraProcesses(workers, sources=len(options.sources), jobs=jobs),
            engine=f"{jobs} processes ({options.config.engine})",
            slots=lambda nodes, engine: slots,
        )
