"""Sources checked against the model, which limits their rate and shares its thresholds with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runtime.commands.setup.options import MonitorOptions
from runtime.config.sources import WatchedSource
from runtime.errors import ConfigInvalid, RateTooHigh
from runtime.model.bundle import Bundle
from runtime.serving.whip.endpoint import require_webrtc


def check_sources(options: MonitorOptions, bundle: Bundle) -> None:
    """Raise an error that names the place of the setting, unless all sources suit the model.

    Raises:
        RateTooHigh, ConfigInvalid, ExtraMissing: As `check_source` does.
    """
    for source in options.sources:
        check_source(source, bundle, partial(options.place, source))


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
