"""Classifier of temporal residuals: a logistic regression whose logit is added to the network's.

    classifier = read_temporal_classifier(Path("bundle/temporal.json"))
    logit = network_logit + classifier.logits(residuals)[0]

The network's features are of single crops; temporal residuals (`streams.features.temporal_residuals`) measure
what changes in time. The measures of a window are three quantiles over time of each ratio, and how face and
surroundings change from frame to frame (`streams.features.frame_changes`). Its features are these measures,
and the product of each with how much the surroundings change: the same measures mean something else in
coarsely coded video, where the whole image jumps, than in steady video.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.files import write_atomically
from streams.features.change_coupling import COARSE_RING
from streams.features.frame_changes import NUM_CHANGES, change_features
from streams.features.temporal_residuals import COMPARISONS, LAG, NUM_RATIOS

TEMPORAL_FILE = "temporal.json"
MIN_SAMPLES = LAG + 1
"""Smallest number of samples of which two can be compared."""

QUANTILES = (0.25, 0.5, 0.75)
NUM_MEASURES = len(QUANTILES) * NUM_RATIOS + NUM_CHANGES
"""Number of measures of a window."""
NUM_FEATURES = 2 * NUM_MEASURES
"""Number of features of a window: the measures, and their products with the change of the surroundings."""
NUM_STANDARDISED = NUM_RATIOS + NUM_CHANGES
"""Number of values that are standardised: the ratios of each sample and the changes of each window."""
MAX_DEVIATION = 3.0
"""Limit to which standardised values are clipped, because larger ones did not occur in training."""


@dataclass(frozen=True, kw_only=True)
class TemporalClassifier:
    """Standardisation and weights of the logistic regression.

    Args:
        centre: Means in training of each ratio and of each change feature, `NUM_STANDARDISED` values.
        scale: Their standard deviations, `NUM_STANDARDISED` values above 0.
        weights: Weights of `temporal_features`, `NUM_FEATURES` values.
        bias: Added to the weighted sum.
        max_logit: Limit that the logit approaches on either side, above 0.
        window: Samples of the windows in training, at least `MIN_SAMPLES`. The logits of shorter windows are
            reduced, because their noise is larger by the root of the number of pairs of crops.

    Raises:
        ValueError: A length is wrong or a value is out of its range.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    max_logit: float
    window: int

    def __post_init__(self) -> None:
        for name, length in (
            ("centre", NUM_STANDARDISED),
            ("scale", NUM_STANDARDISED),
            ("weights", NUM_FEATURES),
        ):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} must have {length} values, not {len(getattr(self, name))}")
        if not np.isfinite((*self.centre, *self.scale, *self.weights, self.bias, self.max_logit)).all():
            raise ValueError("centre, scale, weights, bias and max_logit must be finite")
        if min(self.scale) <= 0:
            raise ValueError(f"scale must be above 0, not {min(self.scale)}")
        if self.max_logit <= 0:
            raise ValueError(f"max_logit must be above 0, not {self.max_logit}")
        if self.window < MIN_SAMPLES:
            raise ValueError(f"window must be at least {MIN_SAMPLES}, not {self.window}")

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score windows.

        Args:
            windows: Residuals, float32 `(N, T, NUM_RESIDUALS)`, oldest first. Comparisons with samples before
                the window are ignored, so that a score depends on the samples in the window only.

        Returns:
            float32 `(N,)`, to be added to the network's logits; 0 for windows shorter than `MIN_SAMPLES`.
        """
        count, samples = windows.shape[:2]
        if samples < MIN_SAMPLES:
            return np.zeros(count, np.float32)
        features = temporal_features(windows, np.asarray(self.centre), np.asarray(self.scale))
        reduction = min(1.0, (samples - MIN_SAMPLES + 1) / (self.window - MIN_SAMPLES + 1)) ** 0.5
        score = features @ np.asarray(self.weights) + self.bias
        return np.asarray(reduction * self.max_logit * np.tanh(score / self.max_logit), np.float32)


def window_changes(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how face and surroundings change in windows.

    Args:
        windows: Residuals, float32 `(N, T, NUM_RESIDUALS)`.

    Returns:
        `(N, NUM_CHANGES)`; NaN for windows with too few frames. See `change_features`.
    """
    return change_features(np.nansum(windows[..., NUM_RATIOS:], axis=1, dtype=np.float64))


def temporal_features(
    windows: NDArray[np.float32], centre: NDArray[np.floating], scale: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the features of windows.

    Args:
        windows: Residuals, float32 `(N, T, NUM_RESIDUALS)`, T at least `MIN_SAMPLES`. NaN is ignored.
        centre: `(NUM_STANDARDISED,)`, subtracted from the ratios and from the change features.
        scale: `(NUM_STANDARDISED,)`, divides them.

    Returns:
        `(N, NUM_FEATURES)`. First the measures: for each comparison the quantiles, for each quantile the
        standardised ratios of that comparison; then the standardised change features. 0, the mean in
        training, for what a window does not contain. Then the product of each measure with the coupling
        feature `COARSE_RING`.
    """
    ratios = _standardised(windows[..., :NUM_RATIOS], centre[:NUM_RATIOS], scale[:NUM_RATIOS])
    half = NUM_RATIOS // len(COMPARISONS)
    ratios[:, :LAG, half:] = np.nan
    quantiles = _quantiles(ratios)
    parts = [quantiles[..., :half], quantiles[..., half:]]
    changes = _standardised(window_changes(windows), centre[NUM_RATIOS:], scale[NUM_RATIOS:])
    changes = np.nan_to_num(changes, nan=0.0)
    flat = [part.reshape(len(windows), len(QUANTILES) * half) for part in parts]
    measures = np.concatenate([*flat, changes], axis=1)
    return np.concatenate([measures, measures * changes[:, COARSE_RING, None]], axis=1)


def _standardised(
    values: NDArray[np.floating], centre: NDArray[np.floating], scale: NDArray[np.floating]
) -> NDArray[np.floating]:
    return np.asarray(np.clip((values - centre) / scale, -MAX_DEVIATION, MAX_DEVIATION))


def _quantiles(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `QUANTILES` of values `(N, T, R)` over T as `(N, quantiles, R)`, without NaN; 0 if all are NaN.

    As numpy.nanquantile, which takes a millisecond for a window because it calls a function per column.
    """
    ordered = np.sort(values, axis=1)  # NaN last
    last = np.maximum(np.count_nonzero(~np.isnan(values), axis=1) - 1, 0)[:, None]
    position = np.asarray(QUANTILES)[:, None] * last
    lower = np.floor(position).astype(np.intp)
    low = np.take_along_axis(ordered, lower, axis=1)
    high = np.take_along_axis(ordered, np.minimum(lower + 1, last), axis=1)
    return np.asarray(np.nan_to_num(low + (high - low) * (position - lower), nan=0.0), np.float64)


def encode_temporal_classifier(classifier: TemporalClassifier) -> str:
    """Return a classifier as JSON text."""
    return json.dumps(asdict(classifier), allow_nan=False) + "\n"


def write_temporal_classifier(path: Path, classifier: TemporalClassifier) -> None:
    """Write a classifier as JSON.

    Args:
        path: Path of the file.
        classifier: The classifier.
    """
    write_atomically(path, encode_temporal_classifier(classifier))


def read_temporal_classifier(path: Path) -> TemporalClassifier:
    """Read a file that `write_temporal_classifier` wrote.

    Args:
        path: Path of the file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file has another format, or a value is out of its range.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=TemporalClassifier)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a temporal classifier: {error}") from error
