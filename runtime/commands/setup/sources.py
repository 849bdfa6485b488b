"""The model of a configuration, and the sources checked against it: it limits their rate and thresholds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runtime.commands.setup.options import MonitorOptions
from runtime.commands.setup.problems import Problems
from runtime.config.sources import WatchedSource
from runtime.errors import ConfigInvalid, RateTooHigh
from runtime.model.bundle import Bundle, load_bundle
from runtime.serving.whip.endpoint import require_webrtc


def load_model(options: MonitorOptions) -> Bundle:
    """Load the model that the options name.

    Args:
        options: The options.

    Raises:
        ConfigInvalid: The model that a file names cannot be used; the message has file, line and key.
        BundleError: The bundled model, or that of the command line, cannot be used.
    """
    if options.config.model is None:
        return load_bundle()
    with options.places.naming_errors("model"):
        return load_bundle(options.config.model)


def check_sources(options: MonitorOptions, bundle: Bundle) -> None:
    """Raise an error that names the place of the setting, unless all sources suit the model.

    Raises:
        RateTooHigh, ConfigInvalid, ExtraMissing: As `check_source` does.
        ConfigInvalid: Several sources do not suit it.
    """
    problems = Problems()
    for source in options.sources:
        with problems.noted():
            check_source(source, bundle, partial(options.place, source))
    problems.raise_all()


def check_source(source: WatchedSource, bundle: Bundle, place: Callable[[str], str] | None = None) -> None:
    """Raise an error unless the settings of a source suit the model.

    Args:
        source: The source.
        bundle: The model.
        place: Returns the place of a key of the source, for errors; None if it is in no configuration.

    Raises:
        RateTooHigh: More verdicts are requested than the model takes samples.
        ConfigInvalid: The thresholds exclude each other.
        ExtraMissing: A library that the source needs is not installed.
    """
    require_webrtc([source.source])
    if source.rate_hz is not None and not 0 < source.rate_hz <= bundle.sample_hz:
        raise RateTooHigh(source.rate_hz, bundle.sample_hz, place and place("rate"))
    model = bundle.calibration
    real, fake = source.thresholds_or(model.threshold_real, model.threshold_fake)
    if real > fake:
        where = source.source.name if place is None else place("thresholds")
        raise ConfigInvalid([f"{where}: real {real:.3g} is above fake {fake:.3g}; give both thresholds"])
