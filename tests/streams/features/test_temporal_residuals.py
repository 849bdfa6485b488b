"""Tests of the temporal residuals: they respond to changes of appearance, not to motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features.temporal_residuals import (
    FLOORS,
    LAGS,
    MEASURES,
    NUM_RESIDUALS,
    REGIONS,
    ResidualMeter,
    clip_residuals,
)

MARGIN = 1.02


def moving_face(frames: int, size: int = 160) -> NDArray[np.uint8]:
    """Return crops of a face that shifts and rotates slightly, RGB uint8 (frames, size, size, 3)."""
    portrait = np.asarray(astronaut(), np.uint8)[40:200, 145:305]  # type: ignore[no-untyped-call]
    large = cv2.resize(portrait, (size, size), interpolation=cv2.INTER_LINEAR)
    crops = []
    for i in range(frames):
        affine = cv2.getRotationMatrix2D((size / 2, size / 2), 0.7 * i, 1 + 0.004 * i)
        affine[:, 2] += np.array([0.9 * i, -0.5 * i])
        crops.append(cv2.warpAffine(large, affine, (size, size), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(crops).astype(np.uint8)


def with_varying_brightness(crops: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change the brightness of the middle of each crop by a random amount of up to eight grey levels."""
    side = crops.shape[1]
    circle = np.zeros((side, side, 1), np.float32)
    cv2.circle(circle, (side // 2, side // 2), side // 4, 1.0, -1)
    middle = cv2.GaussianBlur(circle, (0, 0), side / 20)[..., None]
    light = rng.uniform(-8, 8, (len(crops), 1, 1, 1)) * middle
    return np.clip(crops + light, 0, 255).astype(np.uint8)


def measure(residuals: NDArray[np.float32], name: str, region: str, lag: int = 1) -> NDArray[np.float32]:
    """Return one measure of residuals (T, NUM_RESIDUALS), as (T,)."""
    table = residuals.reshape(-1, len(LAGS), len(MEASURES), len(REGIONS))
    return table[:, LAGS.index(lag), MEASURES.index(name), REGIONS.index(region)]


def test_residuals_separate_varying_brightness_from_motion() -> None:
    """Motion is compensated; varying brightness of the same face raises the coarse measure."""
    steady = clip_residuals(moving_face(8), MARGIN)[2:]
    varying = clip_residuals(with_varying_brightness(moving_face(8), np.random.default_rng(0)), MARGIN)[2:]
    assert steady.shape == (6, NUM_RESIDUALS)
    for lag in LAGS:
        assert measure(steady, "motion", "face", lag).mean() > np.log(0.5 * lag)
        assert (
            measure(varying, "coarse", "inner", lag) - measure(steady, "coarse", "inner", lag)
        ).mean() > 0.7
    assert measure(steady, "texture", "eyes").mean() == pytest.approx(
        measure(varying, "texture", "eyes").mean(), abs=0.1
    )


def test_a_repeated_crop_has_no_residuals_except_texture() -> None:
    """Every measure of identical crops is at its floor, except the texture."""
    residuals = clip_residuals(np.repeat(moving_face(1), 4, axis=0), MARGIN)[2:]
    assert np.isfinite(residuals).all()
    for name, floor in zip(MEASURES, FLOORS, strict=True):
        if name != "texture":
            assert measure(residuals, name, "face") == pytest.approx(np.full(2, np.log(floor)), abs=0.05)


def test_a_lag_without_an_earlier_crop_is_nan() -> None:
    """`clear` forgets earlier crops; afterwards the result equals that of the whole clip."""
    crops = moving_face(4)
    meter = ResidualMeter(MARGIN)
    assert np.isnan(meter.measure(crops[3])).all()
    meter.clear()
    residuals = np.stack([meter.measure(crop) for crop in crops])
    half = NUM_RESIDUALS // 2
    assert np.isnan(residuals[0]).all()
    assert np.isnan(residuals[1, half:]).all()
    assert np.isfinite(residuals[1, :half]).all()
    assert np.isfinite(residuals[2:]).all()
    np.testing.assert_array_equal(residuals, clip_residuals(crops, MARGIN))


def test_residuals_do_not_depend_on_the_crop_size() -> None:
    """Crops of 112, 160 and 224 pixels give similar residuals; smaller crops are accepted too."""
    large = moving_face(5, 224)
    residuals = {
        size: clip_residuals(
            np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in large]), MARGIN
        )[2:]
        for size in (64, 112, 160, 224)
    }
    assert np.abs(residuals[112] - residuals[224]).mean() < 0.15
    assert np.abs(residuals[160] - residuals[224]).mean() < 0.15
    assert np.isfinite(residuals[64]).all()


@pytest.mark.parametrize("margin", [0.6, 1.02, 2.5])
def test_every_region_lies_within_the_crop_at_any_margin(margin: float) -> None:
    """Each region contains cells at a tight and at a wide margin."""
    residuals = clip_residuals(moving_face(3), margin)[2]
    texture = residuals.reshape(len(LAGS), len(MEASURES), len(REGIONS))[0, MEASURES.index("texture")]
    assert (texture > np.log(FLOORS[MEASURES.index("texture")])).all()
