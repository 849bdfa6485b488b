"""The command `unmask calibrate`: watch a genuine camera for a while, and print thresholds for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import typer

from runtime.commands.options import UserError, complain
from runtime.commands.setup.options import MonitorOptions, MonitorSetup
from runtime.commands.setup.sources import check_source, load_model
from runtime.config.model import MonitorConfig, ThresholdsConfig
from runtime.config.reading import Settings
from runtime.config.sources import WatchedSource
from runtime.engines.factory import detector_infer, open_engine
from runtime.errors import CameraNotCalibrated, ConfigInvalid
from runtime.messages import BroadcastMessage, StreamMessage, VerdictMessage
from runtime.model.bundle import load_bundle
from runtime.model.camera_calibration import CameraThresholds, camera_thresholds
from runtime.outputs.standard_error import StandardError
from runtime.pipeline.batcher import Batcher
from runtime.pipeline.monitor import AnalysisFactory, Monitor
from streams.input.continuity import Spacing
from streams.input.source import parse_source


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Options of `unmask calibrate`.

    Args:
        source: Address of the source, or its name in the configuration file.
        seconds: Time to watch.
        config: Configuration file; None to take `source` as an address.
        model: Directory of the bundle; None for the bundled model, or for that of the configuration.
        engine: Inference engine; None for that of the configuration, or the best one that works.
    """

    source: str
    seconds: float
    config: Path | None
    model: Path | None
    engine: str | None


@dataclass
class _Scores:
    """Scores of one stream, received on its threads, and the media time that they cover."""

    spacing: Spacing
    values: list[float] = field(default_factory=list)
    seconds: float = 0.0
    problem: str | None = None
    last_s: float | None = None

    def publish(self, message: BroadcastMessage) -> None:
        if isinstance(message, VerdictMessage):
            if message.p_fake is not None and message.reason is None:
                self.values.append(message.p_fake)
                self.seconds += self._covered_s(message.pts_s)
                self.last_s = message.pts_s
        elif isinstance(message, StreamMessage) and message.reason is not None:
            self.problem = message.reason

    def _covered_s(self, pts_s: float) -> float:
        """Return the time since the last scored sample, or of one sample if this one does not follow it."""
        interval_s = -1.0 if self.last_s is None else pts_s - self.last_s
        # An interval of 0 is that of another face of the same sample.
        follows = interval_s >= 0 and self.spacing.is_bridgeable(interval_s)
        return interval_s if follows else 1 / self.spacing.sample_hz


def run_calibrate(options: CalibrateOptions) -> int:
    """Watch a source and print its thresholds as they are written in a configuration file.

    Args:
        options: Options of the command.

    Returns:
        Exit code: 2 if no thresholds can be derived, else 0.

    Raises:
        UnmaskError: The configuration, the model or the engine cannot be used.
        UserError: There is no source of that name, or it needs a server.
        SourceError: The address is wrong.
    """
    source, loaded = _find_source(options)
    config = MonitorConfig() if loaded is None else loaded.config
    if source.source.kind == "push":
        raise UserError(
            f"{source.source.name}: browsers and WHIP senders connect to the server of `unmask monitor`, and "
            "`unmask calibrate` runs none; connect this camera here, or give its network address"
        )
    bundle = load_bundle(options.model) if loaded is None or options.model else load_model(loaded)
    engine_name = options.engine or config.engine
    scores = _Scores(Spacing(bundle.sample_hz))
    with (
        StandardError(),
        open_engine(bundle, engine_name) as engine,
        Batcher(engine.features) as batcher,
    ):
        analyses = AnalysisFactory(bundle, engine, batcher, detector_infer(engine_name))
        check_source(source, bundle)
        monitor = Monitor(sample_hz=bundle.sample_hz, publish=scores.publish)
        monitor.add(source.source, analyses.factory(source))
        # On Ctrl-C the scores so far are used.
        with monitor, suppress(KeyboardInterrupt):
            monitor.wait(options.seconds)
        if monitor.failure is not None:
            raise monitor.failure
    try:
        found = camera_thresholds(scores.values, bundle.calibration, seconds=scores.seconds)
    except CameraNotCalibrated as error:
        cause = f" ({scores.problem})" if scores.problem and not scores.values else ""
        return complain(f"{source.source.name}: {error}{cause}")
    _print(found, source.source.name, scores.seconds, bundle.name)
    return 0


def _find_source(options: CalibrateOptions) -> tuple[WatchedSource, MonitorOptions | None]:
    """Return the source without thresholds of its own, and the options of the file that it is in."""
    if options.config is None:
        return WatchedSource(source=parse_source(options.source)), None
    try:
        loaded = MonitorSetup(file=options.config, given=Settings(values={})).load("skip")
    except ConfigInvalid as error:
        raise UserError(*error.problems) from None
    for source in loaded.sources:
        if source.source.name == options.source:
            return replace(source, thresholds=ThresholdsConfig(), rate_hz=None), loaded
    names = ", ".join(source.source.name for source in loaded.sources)
    raise UserError(
        f"{options.config}: there is no source named {options.source!r}; it has {names or 'none'}"
    )


def _print(found: CameraThresholds, name: str, seconds: float, model: str) -> None:
    own = found.thresholds
    typer.echo(
        f"# {name}: {seconds:.0f} s with a face, mean p_fake {found.mean_p_fake:.2f}, model {model}"
        + ("; the model's thresholds suit this camera" if found.shift == 0 else "")
    )
    typer.echo(f"thresholds = {{ real = {own.real:g}, fake = {own.fake:g} }}")
