"""Changes from frame to frame: which steps are counted."""

from __future__ import annotations

import numpy as np
import pytest

from streams.features.change_coupling import NUM_COUPLING_SUMS
from streams.features.change_persistence import NUM_PERSISTENCE_SUMS
from streams.features.frame_changes import MIN_STEPS, NUM_CHANGES, NUM_SUMS, ChangeMeter, change_features
from streams.features.repeat_changes import MIN_REPEATS
from tests.support.moving_face import WHOLE, as_images, moving_face, textures


def test_steps_are_counted_and_added() -> None:
    """The sums of two samples equal those of all their steps."""
    strengths = np.exp(np.random.default_rng(1).uniform(0, 1, (9, 1, 1)))
    images = as_images(moving_face(9) + strengths * textures(9, 2))
    meter = ChangeMeter()
    # The comparison between the fifth and the sixth image belongs to both.
    parts = [meter.measure(part, WHOLE) for part in (images[:6], images[4:])]
    whole = meter.measure(images, WHOLE)
    assert whole.shape == (NUM_SUMS,)
    assert [part[-1] for part in (*parts, whole)] == [4, 3, 7]
    steps = np.r_[0 : NUM_COUPLING_SUMS + NUM_PERSISTENCE_SUMS, NUM_SUMS - 1]
    np.testing.assert_allclose(np.sum(parts, axis=0)[steps], whole[steps], rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_no_step(count: int) -> None:
    """A step needs two comparisons; a window with too few steps has no features."""
    images = as_images(moving_face(3))
    assert np.isnan(ChangeMeter().measure(images[:count], WHOLE)).all()
    few = np.full((1, NUM_SUMS), float(MIN_REPEATS))
    few[0, -1] = MIN_STEPS - 1
    assert np.isnan(change_features(few)).all()
    assert np.isnan(change_features(np.zeros((1, NUM_SUMS)))).all()
    few[0, -1] = MIN_STEPS
    assert change_features(few).shape == (1, NUM_CHANGES)
    assert np.isfinite(change_features(few)).all()


def test_repeated_frames_have_no_step() -> None:
    """Nothing has changed between two equal frames; a step leads from picture to picture."""
    images = as_images(moving_face(8) + textures(8, 2))
    meter = ChangeMeter()
    repeated = [*images[:4], images[3], *images[4:]]
    assert meter.measure(repeated, WHOLE)[-1] == meter.measure(images, WHOLE)[-1]
    assert np.isnan(meter.measure([images[0]] * 5, WHOLE)).all()


def test_a_face_without_visible_surroundings_has_no_step() -> None:
    """Replicated edges of the frame are not surroundings."""
    images = as_images(moving_face(5))
    assert np.isnan(ChangeMeter().measure(images, (0.3, 0.25, 0.7, 0.75))).all()
