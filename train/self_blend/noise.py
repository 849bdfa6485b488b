"""Random values and maps that change from frame to frame, with or without memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_MEMORY = 0.9


@dataclass(frozen=True, kw_only=True)
class NoiseSettings:
    """Strength and form of a random map.

    Attributes:
        strength: Standard deviation of the values, in the unit of what they are added to.
        memory: Correlation of a value with that of the frame before, 0..1; 0 for values without memory.
        cells: Random values along each side of the map.
    """

    strength: float
    memory: float
    cells: int = 1

    @classmethod
    def draw(
        cls, rng: np.random.Generator, low: float, high: float, *, cells: tuple[int, int] = (1, 1)
    ) -> Self:
        """Draw settings; half of them are without memory.

        Args:
            rng: Random generator.
            low: Smallest strength; it is log-uniform.
            high: Largest strength.
            cells: Smallest and largest number of cells.
        """
        return cls(
            strength=log_uniform(rng, low, high),
            memory=draw_memory(rng),
            cells=int(rng.integers(cells[0], cells[1], endpoint=True)),
        )


class TemporalNoise:
    """Normally distributed values that follow a stationary autoregressive process of first order.

    Args:
        settings: Strength and form.
        channels: Number of values of each cell.
        rng: Random generator; each frame draws from it.
    """

    def __init__(self, settings: NoiseSettings, channels: int, rng: np.random.Generator) -> None:
        self._settings, self._rng = settings, rng
        self._values = rng.standard_normal((settings.cells, settings.cells, channels))

    def next_values(self) -> NDArray[np.float64]:
        """Return the values of the next frame, float64 `(cells, cells, channels)`."""
        memory = self._settings.memory
        fresh = self._rng.standard_normal(self._values.shape)
        self._values = memory * self._values + np.sqrt(1 - memory**2) * fresh
        return self._settings.strength * self._values

    def next_map(self, size: int) -> NDArray[np.float32]:
        """Return a smooth map of the next frame, float32 `(size, size, channels)`."""
        values = self.next_values().astype(np.float32)
        smooth = cv2.resize(values, (size, size), interpolation=cv2.INTER_CUBIC)
        # OpenCV drops the axis of a single channel.
        return np.asarray(smooth, np.float32).reshape(size, size, -1)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a positive number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_memory(rng: np.random.Generator) -> float:
    """Draw the memory of a noise: none in half of the cases, else uniform up to `MAX_MEMORY`."""
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(0, MAX_MEMORY))
