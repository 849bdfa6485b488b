"""Repeated pictures: found by their surroundings, left out of the steps, and measured on their own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.features.change_coupling import MEASURES
from streams.features.face_regions import REGIONS
from streams.features.frame_changes import ChangeMeter
from streams.features.repeat_changes import (
    MIN_REPEATS,
    NUM_REPEAT_CHANGES,
    NUM_REPEAT_SUMS,
    find_repeats,
    repeat_features,
    repeat_sums,
)
from tests.support.moving_face import WHOLE, as_images, face_mask, features_of, moving_face, textures


def padded(count: int, *, every: int) -> NDArray[np.float32]:
    """Return a changing face of which each picture is shown for several frames."""
    return np.repeat(moving_face(count) + 8 * textures(count, 2), every, axis=0)


def noise(count: int, strength: float) -> NDArray[np.float32]:
    """Return differences as a lossy encoder leaves them, also where a picture is repeated."""
    return strength * textures(count, 7)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_repeats_are_found(every: int, strength: float) -> None:
    """Repeated frames are those that differ by coding noise only; none of a steady stream is one."""
    frames = padded(6, every=every)
    found = find_repeats(as_images(frames + noise(len(frames), strength)), WHOLE)
    expected = [index % every != 0 for index in range(1, len(frames))]
    assert found.surroundings.tolist() == expected
    assert found.picture.tolist() == expected


def test_an_intra_frame_makes_no_repeats() -> None:
    """A single frame in which the whole image jumps is not what the others are compared with."""
    frames = moving_face(8) + 2 * textures(8, 2)
    frames[5:] += 40
    assert not find_repeats(as_images(frames), WHOLE).surroundings.any()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_frames_repeat_only_if_they_are_the_same(count: int) -> None:
    """There is nothing to compare a single difference with."""
    images = as_images(moving_face(2))
    assert find_repeats(images[:count], WHOLE).picture.tolist() == [False] * max(0, count - 1)
    assert find_repeats(images[:1] * 2, WHOLE).picture.tolist() == [True]


def test_a_face_drawn_anew_is_not_repeated_with_its_surroundings() -> None:
    """Its changes there are evidence, so the comparison is kept."""
    frames = padded(8, every=2) + 3 * face_mask() * textures(16, 9)
    found = find_repeats(as_images(frames), WHOLE)
    assert found.surroundings.tolist() == [index % 2 != 0 for index in range(1, 16)]
    assert not found.picture.any()


def test_repeats_do_not_change_the_steps() -> None:
    """A padded stream has the coupling and the persistence of its pictures."""
    rate = features_of(padded(10, every=1))
    twice = features_of(padded(10, every=2))
    np.testing.assert_allclose(twice[:-NUM_REPEAT_CHANGES], rate[:-NUM_REPEAT_CHANGES], rtol=1e-4)
    assert np.isnan(rate[-NUM_REPEAT_CHANGES:]).all()
    assert np.isfinite(twice[-NUM_REPEAT_CHANGES:]).all()


def test_a_face_drawn_anew_changes_while_its_surroundings_are_repeated() -> None:
    """Errors of the face alone raise what is measured at repetitions; noise of the whole image does not."""
    frames = padded(10, every=2) + noise(20, 0.5)
    genuine = features_of(frames)[-NUM_REPEAT_CHANGES:]
    swapped = features_of(frames + 4 * face_mask() * textures(20, 9))[-NUM_REPEAT_CHANGES:]
    relative = slice(0, len(MEASURES) * len(REGIONS))
    assert np.abs(genuine[relative]).max() < 0.5
    assert swapped[relative].min() > 0.5
    assert (swapped > genuine).all()


def test_sums_are_means_of_logarithms() -> None:
    """The features are differences of means; with fewer repetitions than needed there are none."""
    shape = len(MEASURES), len(REGIONS) + 1
    repeated, others = np.zeros((MIN_REPEATS, *shape)), np.ones((4, *shape))
    repeated[..., :-1] = 0.25
    others[..., :-1] = 1.5
    sums = repeat_sums(repeated, others)
    assert sums.shape == (NUM_REPEAT_SUMS,)
    features = repeat_features(np.stack([sums, repeat_sums(repeated[1:], others)]))
    half = NUM_REPEAT_CHANGES // 2
    np.testing.assert_allclose(features[0], [0.25] * half + [0.25 - 0.5] * half)
    assert np.isnan(features[1]).all()


def test_steps_are_counted_between_pictures() -> None:
    """The number of steps of a sample is that of its pictures."""
    meter = ChangeMeter()
    counts = [meter.measure(as_images(padded(8, every=every)), WHOLE)[-1] for every in (1, 2, 3)]
    assert counts == [6, 6, 6]
