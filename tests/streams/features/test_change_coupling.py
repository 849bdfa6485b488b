"""Change coupling: changes of the whole image couple a face to its surroundings, its own changes do not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.features.change_coupling import COARSE_RING, MEASURES, NUM_COUPLING
from streams.features.face_regions import REGIONS
from tests.support.moving_face import face_mask, features_of, moving_face, textures

SLOPE, CORRELATION = slice(0, 5), slice(15, 20)
FINE, COARSE, BROAD = (i * NUM_COUPLING // len(MEASURES) for i in range(3))


def pulses(count: int, seed: int) -> NDArray[np.floating]:
    """Return strengths that vary as those of coding errors do, from 1 to 20 grey levels."""
    return np.exp(np.random.default_rng(seed).uniform(0, 3, (count, 1, 1)))


def test_a_face_follows_changes_of_the_whole_image() -> None:
    """Where coding errors of the whole image vary in strength, slope and correlation are close to 1."""
    coupled = features_of(moving_face(30) + pulses(30, 1) * textures(30, 2))
    for offset in (FINE, COARSE):
        assert coupled[offset:][SLOPE].min() > 0.6
        assert coupled[offset:][SLOPE][REGIONS.index("face")] == pytest.approx(1, abs=0.2)
        assert coupled[offset:][CORRELATION].min() > 0.8


def test_a_face_follows_changes_of_the_exposure() -> None:
    """A gain that varies changes broad parts of face and surroundings alike."""
    gains = 1 + 0.01 * pulses(30, 5) * np.random.default_rng(6).choice([-1, 1], (30, 1, 1))
    broad = features_of(gains * moving_face(30))[BROAD:]
    assert broad[SLOPE][REGIONS.index("face")] == pytest.approx(1, abs=0.3)
    assert broad[CORRELATION][REGIONS.index("face")] > 0.8


def test_a_face_with_changes_of_its_own_does_not_follow() -> None:
    """Where the face alone is drawn anew with errors of another strength, both are small."""
    surroundings, face = pulses(30, 1) * textures(30, 2), pulses(30, 3) * textures(30, 4)
    own = features_of(moving_face(30) + np.where(face_mask() > 0, face, surroundings))
    at = REGIONS.index("nose")
    for offset in (FINE, COARSE):
        assert own[offset:][SLOPE][at] < 0.5
        assert own[offset:][CORRELATION][at] < 0.5


def test_the_feature_of_the_ring_says_how_much_the_surroundings_vary() -> None:
    """It is larger where the strength of the changes varies than where it is the same in every frame."""
    varied = features_of(moving_face(30) + pulses(30, 1) * textures(30, 2))
    steady = features_of(moving_face(30) + 4 * textures(30, 2))
    assert varied[COARSE_RING] > steady[COARSE_RING] + 0.5
