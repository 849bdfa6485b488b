"""Tests of the random maps that change from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest

from train.self_blend.noise import NoiseSettings, TemporalNoise


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_strength_and_memory(memory: float) -> None:
    """The values have the given standard deviation and correlation from frame to frame."""
    settings = NoiseSettings(strength=3.0, memory=memory, cells=20)
    noise = TemporalNoise(settings, 2, np.random.default_rng(0))
    values = np.stack([noise.next_values() for _ in range(30)])
    assert values.shape == (30, 20, 20, 2)
    assert values.std() == pytest.approx(3, rel=0.05)
    assert np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1] == pytest.approx(memory, abs=0.05)


def test_maps_are_smooth() -> None:
    """Neighbouring pixels of a map are similar; a single cell gives one value for the whole map."""
    rng = np.random.default_rng(1)
    smooth = TemporalNoise(NoiseSettings(strength=1.0, memory=0.0, cells=5), 1, rng).next_map(100)
    assert smooth.shape == (100, 100, 1)
    assert smooth.dtype == np.float32
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.1 * smooth.std()
    even = TemporalNoise(NoiseSettings(strength=1.0, memory=0.0), 3, rng).next_map(8)
    assert np.ptp(even, axis=(0, 1)) == pytest.approx(0, abs=1e-6)


def test_drawn_settings_are_in_their_range() -> None:
    """Half of the noises have no memory; the others have up to 0.9."""
    rng = np.random.default_rng(2)
    drawn = [NoiseSettings.draw(rng, 0.2, 3.5, cells=(3, 6)) for _ in range(400)]
    assert all(0.2 <= noise.strength <= 3.5 and 0 <= noise.memory <= 0.9 for noise in drawn)
    assert {noise.cells for noise in drawn} == {3, 4, 5, 6}
    assert np.mean([noise.memory == 0 for noise in drawn]) == pytest.approx(0.5, abs=0.1)
    # Log-uniform: half of the strengths are below the geometric mean of the limits.
    assert np.mean([noise.strength < 0.7**0.5 for noise in drawn]) == pytest.approx(0.5, abs=0.1)
