"""The command `unmask monitor`, in this process or with several."""

from __future__ import annotations

import asyncio

# Before any module that loads OpenCV; see `runtime.commands.monitor.run`.
import av  # noqa: F401

from runtime.commands.monitor.run import (
    Control,
    MonitorRun,
    Receivers,
    RunSetup,
    Watching,
    load_options,
    thresholds_of,
)
from runtime.commands.monitor.source_control import SourceControl
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.commands.setup.sources import check_sources, load_model
from runtime.engines.factory import detector_infer, open_engine
from runtime.model.bundle import Bundle
from runtime.outputs.standard_error import StandardError
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.monitor import AnalysisFactory, Monitor


def run_monitor(setup: MonitorSetup) -> int:
    """Watch sources and serve the verdicts until a signal, the end of all sources or of the duration.

    Args:
        setup: Where the options come from; SIGHUP reads them again.

    Returns:
        Exit code: 2 if no source can be read, 1 if the recording could not be written, else 0.

    Raises:
        UnmaskError: The configuration, the model, the engine, the address or an output cannot be used.
        UserError: A value cannot be used.
    """
    options = load_options(setup)
    bundle = load_model(options)
    if options.config.jobs > 1:
        from runtime.commands.monitor.processes import run_with_processes

        return run_with_processes(setup, options, bundle)
    return _run_here(setup, options, bundle)


def _run_here(setup: MonitorSetup, options: MonitorOptions, bundle: Bundle) -> int:
    infer = detector_infer(options.config.engine)
    with (
        StandardError() as output,
        open_engine(bundle, options.config.engine) as engine,
        Batcher(engine.features) as batcher,
    ):
        analyses = AnalysisFactory(bundle, engine, batcher, infer)
        check_sources(options, bundle)
        thresholds = thresholds_of(options, bundle)

        def watch(receivers: Receivers) -> tuple[Watching, Control]:
            monitor = Monitor(
                sample_hz=bundle.sample_hz,
                publish=receivers.publish,
                on_change=receivers.on_change,
                on_frame=receivers.on_frame,
                keep=receivers.keep,
            )
            return monitor, SourceControl(monitor, options, analyses, thresholds)

        run = RunSetup(
            setup=setup,
            options=options,
            bundle=bundle,
            thresholds=thresholds,
            engine=engine.describe,
            watch=watch,
        )
        return asyncio.run(MonitorRun(run, output).serve())
