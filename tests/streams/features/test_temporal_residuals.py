"""What is measured between crops: what trembles, and not what moves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from streams.features.temporal_residuals import (
    FLOOR,
    KINDS,
    LAGS,
    NUM_RESIDUALS,
    PARTS,
    ResidualMeter,
    clip_residuals,
)

MARGIN = 1.02


def moving(frames: int, size: int = 160) -> NDArray[np.uint8]:
    """Give crops of a face that drifts and turns a little, uint8 RGB (frames, size, size, 3)."""
    portrait = np.asarray(astronaut(), np.uint8)[40:200, 145:305]  # type: ignore[no-untyped-call]
    large = cv2.resize(portrait, (size, size), interpolation=cv2.INTER_LINEAR)
    crops = []
    for i in range(frames):
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), 0.7 * i, 1 + 0.004 * i)
        turn[:, 2] += 0.9 * i, -0.5 * i
        crops.append(cv2.warpAffine(large, turn, (size, size), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(crops).astype(np.uint8)


def trembling(crops: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change the light of the middle of each crop by up to eight grey levels, each in its own way."""
    side = crops.shape[1]
    middle = np.zeros((side, side, 1), np.float32)
    cv2.circle(middle, (side // 2, side // 2), side // 4, 1.0, -1)
    middle = cv2.GaussianBlur(middle, (0, 0), side / 20)[..., None]
    light = rng.uniform(-8, 8, (len(crops), 1, 1, 1)) * middle
    return np.clip(crops + light, 0, 255).astype(np.uint8)


def kind(measured: NDArray[np.float32], name: str, part: str, lag: int = 1) -> NDArray[np.float32]:
    """Choose one measure of some crops (T, FLICKER)."""
    table = measured.reshape(-1, len(LAGS), len(KINDS), len(PARTS))
    return table[:, LAGS.index(lag), KINDS.index(name), PARTS.index(part)]


def test_what_moves_is_told_from_what_trembles() -> None:
    """A face that drifts and turns differs little once it is laid on; light that trembles stays."""
    steady = clip_residuals(moving(8), MARGIN)[2:]
    shaken = clip_residuals(trembling(moving(8), np.random.default_rng(0)), MARGIN)[2:]
    assert steady.shape == (6, NUM_RESIDUALS)
    for lag in LAGS:
        assert kind(steady, "motion", "face", lag).mean() > np.log(0.5 * lag)
        assert (kind(shaken, "coarse", "inner", lag) - kind(steady, "coarse", "inner", lag)).mean() > 0.7
    assert kind(steady, "texture", "eyes").mean() == pytest.approx(
        kind(shaken, "texture", "eyes").mean(), abs=0.1
    )


def test_a_still_picture_has_no_flicker_but_its_texture() -> None:
    """The same crop twice differs in nothing; every measure stays finite."""
    measured = clip_residuals(np.repeat(moving(1), 4, axis=0), MARGIN)[2:]
    assert np.isfinite(measured).all()
    for name, least in zip(KINDS, FLOOR, strict=True):
        if name != "texture":
            assert kind(measured, name, "face") == pytest.approx(np.full(2, np.log(least)), abs=0.05)


def test_what_lies_before_the_first_crop_is_not_known() -> None:
    """NaN where a lag has no crop; `clear` begins anew; then it is as crop by crop as all at once."""
    crops = moving(4)
    meter = ResidualMeter(MARGIN)
    assert np.isnan(meter.measure(crops[3])).all()
    meter.clear()
    found = np.stack([meter.measure(crop) for crop in crops])
    half = NUM_RESIDUALS // 2
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1, half:]).all()
    assert np.isfinite(found[1, :half]).all()
    assert np.isfinite(found[2:]).all()
    np.testing.assert_array_equal(found, clip_residuals(crops, MARGIN))


def test_the_input_size_of_a_model_does_not_matter() -> None:
    """Crops at 112, 160 and 224 pixels show about the same, and smaller ones can be measured too."""
    large = moving(5, 224)
    found = {
        size: clip_residuals(
            np.stack([cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA) for crop in large]), MARGIN
        )[2:]
        for size in (64, 112, 160, 224)
    }
    assert np.abs(found[112] - found[224]).mean() < 0.15
    assert np.abs(found[160] - found[224]).mean() < 0.15
    assert np.isfinite(found[64]).all()


@pytest.mark.parametrize("margin", [0.6, 1.02, 2.5])
def test_every_part_lies_within_the_crop_at_any_margin(margin: float) -> None:
    """However tight or wide the crop, each part has pixels to measure."""
    measured = clip_residuals(moving(3), margin)[2]
    texture = measured.reshape(len(LAGS), len(KINDS), len(PARTS))[0, KINDS.index("texture")]
    assert (texture > np.log(FLOOR[KINDS.index("texture")])).all()
