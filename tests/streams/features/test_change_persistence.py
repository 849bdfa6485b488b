"""Change persistence: changes that continue have a positive correlation, those taken back a negative one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.features.change_coupling import NUM_COUPLING
from streams.features.change_persistence import (
    NUM_PERSISTENCE,
    persistence_features,
    persistence_sums,
)
from tests.support.moving_face import face_mask, features_of, moving_face, textures


def persistence_of(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    return features_of(frames)[NUM_COUPLING : NUM_COUPLING + NUM_PERSISTENCE]


def test_a_face_drawn_anew_in_every_frame_takes_changes_back() -> None:
    """Random errors of the face alone correlate negatively, close to -0.5; the ring grows brighter."""
    brighter = 0.5 * np.arange(30)[:, None, None]
    trembling = persistence_of(moving_face(30) + brighter + 8 * face_mask() * textures(30, 2))
    assert trembling[0] == pytest.approx(-0.5, abs=0.15)
    assert trembling[:-1].max() < -0.25
    assert trembling[-1] > trembling[:-1].max()


def test_changes_of_light_continue() -> None:
    """A light that grows brighter on the face changes it in the same direction in every frame."""
    shade = np.linspace(0, 60, 30)[:, None, None] * face_mask() * np.linspace(0, 1, 120)
    assert persistence_of(moving_face(30) + shade)[0] > 0.3


def test_the_correlation_is_exact_for_known_changes() -> None:
    """Changes that repeat give 1, opposite ones -1, none 0, but for the floor."""
    changes = np.array([[10.0, -10.0, 0.0]] * 8)
    weights = np.eye(NUM_PERSISTENCE, 3)
    for later, expected in ((changes, 1), (-changes, -1)):
        sums = persistence_sums(changes, later, weights)
        found = persistence_features(sums[None], np.array([8]))[0]
        assert found[:3] == pytest.approx([expected, expected, 0], abs=1e-3)
