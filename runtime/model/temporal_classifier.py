"""Classifier of temporal residuals: logistic regressions whose logit is added to the network's.

    classifier = read_temporal_classifier(Path("bundle/temporal.json"))
    logit = network_logit + classifier.logits(residuals)[0]

The network's features are of single crops; temporal residuals (`streams.features.temporal_residuals`) measure
what changes in time. The measures of a window are three quantiles over time of each ratio, and how face and
surroundings change from frame to frame (`streams.features.frame_changes`). Its features are these measures,
and the product of most with how much the surroundings change: the same measures mean something else in
coarsely coded video, where the whole image jumps, than in steady video. Repetitions have no product: they are
measured where the surroundings do not change.

Below 15 frames a second there is no frame between two samples that could be compared, and only the measures
between samples are left. They have a regression of their own: the weights of the other one are made for all
measures together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.files import write_atomically
from streams.features.change_coupling import COARSE_RING
from streams.features.frame_changes import NUM_CHANGES, change_features
from streams.features.repeat_changes import NUM_REPEAT_CHANGES
from streams.features.temporal_residuals import COMPARISONS, LAG, NUM_RATIOS

TEMPORAL_FILE = "temporal.json"
MIN_SAMPLES = LAG + 1
"""Smallest number of samples of which two can be compared."""

QUANTILES = (0.25, 0.5, 0.75)
NUM_MEASURES = len(QUANTILES) * NUM_RATIOS + NUM_CHANGES
"""Number of measures of a window."""
NUM_PRODUCTS = NUM_MEASURES - NUM_REPEAT_CHANGES
"""Number of measures, from the first on, whose product with the change of the surroundings is a feature."""
NUM_FEATURES = NUM_MEASURES + NUM_PRODUCTS
"""Number of features of a window."""
SAMPLE_FEATURES = slice(len(QUANTILES) * NUM_RATIOS // 2, len(QUANTILES) * NUM_RATIOS)
"""Features that need no frame between the samples: the quantiles of the comparisons of samples."""
NUM_SAMPLE_FEATURES = SAMPLE_FEATURES.stop - SAMPLE_FEATURES.start
NUM_STANDARDISED = NUM_RATIOS + NUM_CHANGES
"""Number of values that are standardised: the ratios of each sample and the changes of each window."""
MAX_DEVIATION = 3.0
"""Limit to which standardised values are clipped, because larger ones did not occur in training."""


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Logistic regression on features of which some may be missing.

    Args:
        means: Means of the features in training; one that is missing counts as its mean.
        weights: Weights of the features less their means, as many.
        bias: Added to the weighted sum.
    """

    means: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the logits of features `(N, F)`, NaN where they are missing."""
        deviations = np.nan_to_num(features - np.asarray(self.means), nan=0.0)
        return np.asarray(deviations @ np.asarray(self.weights) + self.bias)

    def scaled(self, factor: float, offset: float) -> Regression:
        """Return the regression whose logits are `factor * (logit + offset)`."""
        weights = tuple(factor * weight for weight in self.weights)
        return replace(self, weights=weights, bias=factor * (self.bias + offset))


@dataclass(frozen=True, kw_only=True)
class TemporalClassifier:
    """Standardisation and weights of the logistic regressions.

    Args:
        centre: Means in training of each ratio and of each change feature, `NUM_STANDARDISED` values.
        scale: Their standard deviations, `NUM_STANDARDISED` values above 0.
        with_frames: Regression on all features, `NUM_FEATURES`.
        without_frames: Regression on the `SAMPLE_FEATURES`, for windows in which no others are known.
        max_logit: Limit that the logit approaches on either side, above 0.
        window: Samples of the windows in training, at least `MIN_SAMPLES`. The logits of shorter windows are
            reduced, because their noise is larger by the root of the number of pairs of crops.

    Raises:
        ValueError: A length is wrong or a value is out of its range.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    with_frames: Regression
    without_frames: Regression
    max_logit: float
    window: int

    def __post_init__(self) -> None:
        for name, values, length in (
            ("centre", self.centre, NUM_STANDARDISED),
            ("scale", self.scale, NUM_STANDARDISED),
            ("means", self.with_frames.means, NUM_FEATURES),
            ("weights", self.with_frames.weights, NUM_FEATURES),
            ("means without frames", self.without_frames.means, NUM_SAMPLE_FEATURES),
            ("weights without frames", self.without_frames.weights, NUM_SAMPLE_FEATURES),
        ):
            if len(values) != length:
                raise ValueError(f"{name} must have {length} values, not {len(values)}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite")
        if not np.isfinite((self.with_frames.bias, self.without_frames.bias, self.max_logit)).all():
            raise ValueError("bias and max_logit must be finite")
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
                the window are ignored.

        Returns:
            float32 `(N,)`, to be added to the network's logits; 0 for windows shorter than `MIN_SAMPLES` and
            for those in which nothing could be compared, as where the face fills the frame.
        """
        count, samples = windows.shape[:2]
        if samples < MIN_SAMPLES:
            return np.zeros(count, np.float32)
        features = temporal_features(windows, np.asarray(self.centre), np.asarray(self.scale))
        known = ~np.isnan(features)
        of_samples = known[:, SAMPLE_FEATURES].any(1)
        of_frames = np.delete(known, SAMPLE_FEATURES, axis=1).any(1)
        score = np.where(
            of_frames,
            self.with_frames.scores(features),
            self.without_frames.scores(features[:, SAMPLE_FEATURES]) * of_samples,
        )
        reduction = min(1.0, (samples - MIN_SAMPLES + 1) / (self.window - MIN_SAMPLES + 1)) ** 0.5
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
        standardised ratios of that comparison; then the standardised change features. Then the products of
        the first `NUM_PRODUCTS` with the coupling feature `COARSE_RING`. NaN for what a window does not
        contain.
    """
    ratios = _standardised(windows[..., :NUM_RATIOS], centre[:NUM_RATIOS], scale[:NUM_RATIOS])
    half = NUM_RATIOS // len(COMPARISONS)
    ratios[:, :LAG, half:] = np.nan
    quantiles = _quantiles(ratios)
    parts = [quantiles[..., :half], quantiles[..., half:]]
    changes = _standardised(window_changes(windows), centre[NUM_RATIOS:], scale[NUM_RATIOS:])
    flat = [part.reshape(len(windows), len(QUANTILES) * half) for part in parts]
    measures = np.concatenate([*flat, changes], axis=1)
    return np.concatenate([measures, measures[:, :NUM_PRODUCTS] * changes[:, COARSE_RING, None]], axis=1)


def _standardised(
    values: NDArray[np.floating], centre: NDArray[np.floating], scale: NDArray[np.floating]
) -> NDArray[np.floating]:
    return np.asarray(np.clip((values - centre) / scale, -MAX_DEVIATION, MAX_DEVIATION))


def _quantiles(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `QUANTILES` of values `(N, T, R)` over T as `(N, quantiles, R)`, without NaN if any are not.

    As numpy.nanquantile, which takes a millisecond for a window because it calls a function per column.
    """
    ordered = np.sort(values, axis=1)  # NaN last
    last = np.maximum(np.count_nonzero(~np.isnan(values), axis=1) - 1, 0)[:, None]
    position = np.asarray(QUANTILES)[:, None] * last
    lower = np.floor(position).astype(np.intp)
    low = np.take_along_axis(ordered, lower, axis=1)
    high = np.take_along_axis(ordered, np.minimum(lower + 1, last), axis=1)
    return np.asarray(low + (high - low) * (position - lower), np.float64)


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
