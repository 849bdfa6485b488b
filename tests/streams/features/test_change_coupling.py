"""Change coupling: changes of the whole image couple a face to its surroundings, its own changes do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features.change_coupling import (
    MEASURES,
    MIN_STEPS,
    NUM_COUPLING,
    NUM_SUMS,
    SIZE,
    CouplingMeter,
    coupling_features,
)
from streams.features.face_regions import REGIONS

WHOLE = (0.0, 0.0, 1.0, 1.0)
SLOPE, CORRELATION, RING = slice(0, 5), slice(15, 20), 20
COARSE = NUM_COUPLING // len(MEASURES)


def frames(count: int) -> NDArray[np.float32]:
    """Return a face that moves slightly, grey float32 (count, SIZE, SIZE)."""
    scene = np.asarray(astronaut(), np.uint8)[0:280, 84:364]  # type: ignore[no-untyped-call]
    grey = cv2.cvtColor(cv2.resize(scene, (SIZE, SIZE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    turned = (cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 0.3 * np.sin(i), 1.0) for i in range(count))
    return np.stack(
        [cv2.warpAffine(grey, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE) for matrix in turned]
    ).astype(np.float32)


def textures(count: int, seed: int) -> NDArray[np.float32]:
    """Return blotches that differ in every frame, with a standard deviation of 1."""
    blotches = np.random.default_rng(seed).normal(0, 1, (count, SIZE // 4, SIZE // 4)).astype(np.float32)
    return np.stack([cv2.resize(each, (SIZE, SIZE)) for each in blotches])


def features(images: NDArray[np.floating]) -> NDArray[np.float64]:
    pixels = np.clip(images, 0, 255).astype(np.uint8)
    return np.asarray(coupling_features(CouplingMeter().measure(list(pixels), WHOLE)[None])[0])


def pulses(count: int, seed: int) -> NDArray[np.floating]:
    """Return strengths that vary as those of coding errors do, from 1 to 20 grey levels."""
    return np.exp(np.random.default_rng(seed).uniform(0, 3, (count, 1, 1)))


def disc() -> NDArray[np.float32]:
    """Return the face itself, without its surroundings."""
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.ellipse(mask, (SIZE // 2, SIZE // 2), (SIZE // 5, SIZE // 4), 0, 0, 360, 1.0, -1)
    return mask


def test_a_face_follows_changes_of_the_whole_image() -> None:
    """Where coding errors of the whole image vary in strength, slope and correlation are close to 1."""
    coupled = features(frames(30) + pulses(30, 1) * textures(30, 2))
    for offset in (0, COARSE):
        assert coupled[offset:][SLOPE].min() > 0.6
        assert coupled[offset:][SLOPE][REGIONS.index("face")] == pytest.approx(1, abs=0.2)
        assert coupled[offset:][CORRELATION].min() > 0.8


def test_a_face_with_changes_of_its_own_does_not_follow() -> None:
    """Where the face alone is drawn anew with errors of another strength, both are small."""
    surroundings, face = pulses(30, 1) * textures(30, 2), pulses(30, 3) * textures(30, 4)
    own = features(frames(30) + np.where(disc() > 0, face, surroundings))
    at = REGIONS.index("nose")
    for offset in (0, COARSE):
        assert own[offset:][SLOPE][at] < 0.5
        assert own[offset:][CORRELATION][at] < 0.5


def test_steps_are_counted_and_added() -> None:
    """The sums of two samples equal those of all their steps."""
    images = list(np.clip(frames(9) + pulses(9, 1) * textures(9, 2), 0, 255).astype(np.uint8))
    meter = CouplingMeter()
    # The comparison between the fifth and the sixth image belongs to both.
    parts = [meter.measure(part, WHOLE) for part in (images[:6], images[4:])]
    whole = meter.measure(images, WHOLE)
    assert whole.shape == (NUM_SUMS,)
    assert [part[-1] for part in (*parts, whole)] == [4, 3, 7]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_have_no_step(count: int) -> None:
    """A step needs two comparisons; a window with too few steps has no features."""
    images = list(frames(3).astype(np.uint8))
    assert np.isnan(CouplingMeter().measure(images[:count], WHOLE)).all()
    few = np.ones((1, NUM_SUMS))
    few[0, -1] = MIN_STEPS - 1
    assert np.isnan(coupling_features(few)).all()
    assert np.isnan(coupling_features(np.zeros((1, NUM_SUMS)))).all()
    few[0, -1] = MIN_STEPS
    assert np.isfinite(coupling_features(few)).all()


def test_repeated_frames_have_no_step() -> None:
    """Nothing has changed between two equal frames, so nothing is compared with them."""
    images = list(np.clip(frames(8) + textures(8, 2), 0, 255).astype(np.uint8))
    meter = CouplingMeter()
    assert (
        meter.measure([*images[:4], images[3], *images[4:]], WHOLE)[-1]
        == meter.measure(images, WHOLE)[-1] - 1
    )
    assert np.isnan(meter.measure([images[0]] * 5, WHOLE)).all()


def test_a_face_without_visible_surroundings_has_no_step() -> None:
    """Replicated edges of the frame are not surroundings."""
    images = list(frames(5).astype(np.uint8))
    assert np.isnan(CouplingMeter().measure(images, (0.3, 0.25, 0.7, 0.75))).all()
