"""Tests of the temporal residuals: they respond to what changes in the face only."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features import frame_changes
from streams.features.face_regions import REGIONS
from streams.features.temporal_residuals import (
    COMPARISONS,
    LAG,
    MEASURES,
    NUM_RATIOS,
    SIZE,
    FaceContext,
    ResidualMeter,
    every_nth,
)


def moving_face(frames: int) -> NDArray[np.uint8]:
    """Return a face that shifts and rotates slightly, RGB uint8 (frames, SIZE, SIZE, 3)."""
    scene = np.asarray(astronaut(), np.uint8)[0:280, 84:364]  # type: ignore[no-untyped-call]
    small = cv2.resize(scene, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    crops = []
    for i in range(frames):
        affine = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 0.5 * i, 1 + 0.003 * i)
        affine[:, 2] += np.array([0.6 * i, -0.3 * i])
        crops.append(cv2.warpAffine(small, affine, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(crops).astype(np.uint8)


def with_varying_brightness(crops: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Change the brightness of a disc in the middle of each crop by a random amount of up to eight levels."""
    disc = np.zeros((SIZE, SIZE), np.float32)
    cv2.circle(disc, (SIZE // 2, SIZE // 2), round(radius * SIZE), 1.0, -1)
    middle = cv2.GaussianBlur(disc, (0, 0), 2)[..., None]
    light = np.random.default_rng(0).uniform(-8, 8, (len(crops), 1, 1, 1)) * middle
    return np.clip(crops + light, 0, 255).astype(np.uint8)


def measured(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the residuals of crops, each with the one before it, (T, comparisons, measures, regions)."""
    meter = ResidualMeter()
    contexts = [
        FaceContext(current=crop, previous=earlier)
        for crop, earlier in zip(crops, [None, *crops[:-1]], strict=True)
    ]
    residuals = np.stack([meter.measure(context)[:NUM_RATIOS] for context in contexts])
    return residuals.reshape(-1, len(COMPARISONS), len(MEASURES), len(REGIONS))


def test_change_inside_the_face_is_separated_from_motion() -> None:
    """Brightness that varies in the face alone raises its coarse measure in both comparisons."""
    steady, varying = moving_face(8), with_varying_brightness(moving_face(8), 0.2)
    raised = (measured(varying) - measured(steady))[LAG:, :, MEASURES.index("coarse"), REGIONS.index("face")]
    assert raised.mean(0) == pytest.approx(np.full(2, 1.5), abs=0.9)


def test_change_of_the_whole_crop_cancels() -> None:
    """Brightness that varies everywhere, as a camera's does, changes nothing."""
    change = measured(with_varying_brightness(moving_face(8), 1.0))[LAG:, :, MEASURES.index("coarse")]
    assert np.abs(change).mean() < 0.2


def test_noise_cancels() -> None:
    """Sensor noise is in the surroundings too."""
    rng = np.random.default_rng(0)
    noisy = np.clip(moving_face(8) + rng.normal(0, 6, (8, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    assert np.abs(measured(noisy)[LAG:, :, MEASURES.index("fine")]).mean() < 0.2


def test_what_cannot_be_compared_is_nan() -> None:
    """The first samples, a missing frame and repeated frames give NaN; `clear` starts again."""
    crops = moving_face(5)
    meter = ResidualMeter()
    half = NUM_RATIOS // 2
    for _ in range(2):
        residuals = [meter.measure(FaceContext(current=crop))[:NUM_RATIOS] for crop in crops]
        assert np.isnan(residuals[:LAG]).all()
        assert np.isnan(residuals[LAG][:half]).all()
        assert np.isfinite(residuals[LAG][half:]).all()
        meter.clear()
    repeated = FaceContext(current=crops[0], previous=crops[0])
    assert np.isnan([meter.measure(repeated) for _ in range(4)]).all()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_samples_that_are_not_measured(every: int) -> None:
    """Measuring every n-th sample gives the residuals of `every_nth`, with the same distance in time."""
    crops = moving_face(8)
    history = tuple(cv2.resize(crop[..., 1], (frame_changes.SIZE,) * 2) for crop in crops)
    contexts = [
        FaceContext(current=crop, previous=earlier, history=history)
        for crop, earlier in zip(crops, [None, *crops[:-1]], strict=True)
    ]
    whole, thinned = ResidualMeter(), ResidualMeter()
    residuals = np.stack([whole.measure(context) for context in contexts])
    measured_only = [
        thinned.skip() if number % every else thinned.measure(context)
        for number, context in enumerate(contexts)
    ]
    np.testing.assert_array_equal(measured_only, every_nth(residuals, every))
    assert np.isfinite(residuals[LAG:]).all()
    assert np.isfinite(every_nth(residuals, every)[6]).any()


def test_earlier_frames_count_once_the_face_has_been_followed() -> None:
    """Before that, they may show another scene."""
    history = tuple(cv2.resize(crop[..., 1], (frame_changes.SIZE,) * 2) for crop in moving_face(5))
    meter = ResidualMeter()
    context = FaceContext(current=moving_face(1)[0], history=history)
    steps = [meter.measure(context)[-1] for _ in range(LAG + 1)]
    np.testing.assert_array_equal(steps, [np.nan] * LAG + [3])
    meter.clear()
    assert np.isnan(meter.measure(context)[-1])


def test_parts_outside_the_frame_are_left_out() -> None:
    """Replicated edges count neither for the face nor for its surroundings."""
    crops = moving_face(2)
    whole = FaceContext(current=crops[1], previous=crops[0])
    cut = crops.copy()
    cut[:, 3 * SIZE // 4 :] = 0
    visible = replace(whole, current=cut[1], previous=cut[0], visible=(0.0, 0.0, 1.0, 0.75))
    half = NUM_RATIOS // 2
    reference, inside = (ResidualMeter().measure(context)[:half] for context in (whole, visible))
    assert np.isfinite(inside).all()
    assert np.abs(inside - reference).mean() < 0.5
    # Of a face that fills the frame there are no surroundings to compare with.
    assert np.isnan(ResidualMeter().measure(replace(whole, visible=(0.3, 0.25, 0.7, 0.75)))).all()
    # A region outside the frame alone is NaN.
    below = replace(whole, visible=(0.0, 0.0, 1.0, 0.55))
    table = ResidualMeter().measure(below)[:NUM_RATIOS].reshape(2, len(MEASURES), 5)[0]
    assert np.isnan(table[:, REGIONS.index("mouth")]).all()
    assert np.isfinite(table[:, REGIONS.index("eyes")]).all()
