"""Judges a face by its flicker: the second voice beside the network, which sees each crop by itself.

    judge = read_flicker(Path("bundle/temporal.json"))
    logit = network_logit + judge.logits(flicker)[0]

Flicker is what `streams.features.temporal_residuals` measures. Over a window it is told by three quantiles of each measure, and
those are weighed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.files import write_atomically
from streams.features.temporal_residuals import LAGS, NUM_RESIDUALS

TEMPORAL_FILE = "temporal.json"
LEAST = max(LAGS) + 1
"""The fewest samples that hold every lag."""

QUANTILES = (0.15, 0.5, 0.85)
TEMPORAL_FEATURES = len(QUANTILES) * NUM_RESIDUALS
"""How many numbers a window's flicker is told by."""
MAX_LEVEL = 3.0
"""Deviations beyond which a measure counts no more: nothing like it was trained on."""


@dataclass(frozen=True, kw_only=True)
class TemporalClassifier:
    """Gives what flicker adds to the network's logit.

    Args:
        centre: (FLICKER,) the mean of each measure in training.
        scale: (FLICKER,) its deviation, above 0.
        weights: (TELLS,) of the quantiles, in the order of `temporal_features`.
        bias: Is added to their sum.
        surest: What the logit is held below, on either side: it bends towards it. Above 0.
        window: Samples of the windows it was trained on, at least `LEAST`. Shorter ones are noisier and count
            for less: the noise falls with the root of how many pairs of crops there are.

    Raises:
        ValueError: A length is wrong or a value out of its range.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    max_logit: float
    window: int

    def __post_init__(self) -> None:
        for name, length in (
            ("centre", NUM_RESIDUALS),
            ("scale", NUM_RESIDUALS),
            ("weights", TEMPORAL_FEATURES),
        ):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} must have {length} values, not {len(getattr(self, name))}")
        if not np.isfinite((*self.centre, *self.scale, *self.weights, self.bias, self.max_logit)).all():
            raise ValueError("centre, scale, weights, bias and surest must be finite")
        if min(self.scale) <= 0:
            raise ValueError(f"scale must be above 0, not {min(self.scale)}")
        if self.max_logit <= 0:
            raise ValueError(f"surest must be above 0, not {self.max_logit}")
        if self.window < LEAST:
            raise ValueError(f"window must be at least {LEAST}, not {self.window}")

    def logits(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Judge windows.

        Args:
            windows: float32 (N, T, FLICKER), oldest first. What compares with crops before the window is left
                out, so that a window says the same wherever it was cut from.

        Returns:
            float32 (N,), to be added to the network's logits; 0 for windows shorter than `LEAST`.
        """
        count, samples = windows.shape[:2]
        if samples < LEAST:
            return np.zeros(count, np.float32)
        told = temporal_features(windows, np.asarray(self.centre), np.asarray(self.scale))
        trust = min(1.0, (samples - LEAST + 1) / (self.window - LEAST + 1)) ** 0.5
        said = told @ np.asarray(self.weights) + self.bias
        return np.asarray(trust * self.max_logit * np.tanh(said / self.max_logit), np.float32)


def temporal_features(
    windows: NDArray[np.float32], centre: NDArray[np.floating], scale: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Turn the flicker of windows into the numbers that are weighed.

    Args:
        windows: float32 (N, T, FLICKER), T at least `LEAST`.
        centre: (FLICKER,) to be taken off.
        scale: (FLICKER,) to divide by.

    Returns:
        (N, TELLS): for each lag the quantiles, each of all its measures.
    """
    level = np.clip((windows - centre) / scale, -MAX_LEVEL, MAX_LEVEL)
    own, count = NUM_RESIDUALS // len(LAGS), len(windows)
    parts = [
        np.quantile(level[:, lag:, number * own : (number + 1) * own], QUANTILES, axis=1)
        for number, lag in enumerate(LAGS)
    ]
    return np.concatenate(
        [part.transpose(1, 0, 2).reshape(count, len(QUANTILES) * own) for part in parts], axis=1
    )


def to_json(judge: TemporalClassifier) -> str:
    """Give the form of a judge in a file."""
    return json.dumps(asdict(judge), allow_nan=False) + "\n"


def write_temporal_classifier(path: Path, judge: TemporalClassifier) -> None:
    """Write a judge as JSON."""
    write_atomically(path, to_json(judge))


def read_temporal_classifier(path: Path) -> TemporalClassifier:
    """Read what `write_temporal_classifier` wrote.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is something else, or a value is out of its range.
    """
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        values = {field.name: stated[field.name] for field in fields(TemporalClassifier)}
        lists = {name: tuple(map(float, values[name])) for name in ("centre", "scale", "weights")}
        return TemporalClassifier(
            **lists,
            bias=float(values["bias"]),
            max_logit=float(values["max_logit"]),
            window=int(values["window"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a flicker judge ({type(error).__name__}: {error})") from error
