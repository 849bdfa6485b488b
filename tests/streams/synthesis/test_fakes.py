"""Tests of synthetic fakes: they change the face inside their mask, reproducibly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from streams.synthesis.fakes import (
    EXPRESSION_REGIONS,
    Region,
    blend_mask,
    make_fake,
    sample_fake_parameters,
    self_blend,
)

FACE = np.ascontiguousarray(astronaut()[60:204, 150:294])  # type: ignore[no-untyped-call]
RAMP = np.tile(np.linspace(0, 255, 144).astype(np.uint8)[:, None, None], (1, 144, 3))


def test_only_the_masked_region_changes() -> None:
    """With a changed copy, every pixel outside the mask is unchanged."""
    for seed in range(8):
        parameters = sample_fake_parameters(np.random.default_rng(seed), outside=False)
        fake, mask = make_fake(FACE, parameters)
        assert fake.shape == FACE.shape
        assert fake.dtype == np.uint8
        assert mask.max() > 0.3
        assert np.array_equal(fake[mask == 0], FACE[mask == 0])
        assert not np.array_equal(fake[mask > 0.3], FACE[mask > 0.3])


def test_a_wider_crop_has_the_same_fake_in_its_middle() -> None:
    """The blended region keeps its place in the face, whatever the margin of the crop."""
    for seed in range(8):
        narrow, wide = (
            blend_mask(192, 192, sample_fake_parameters(np.random.default_rng(seed), margin=margin))
            for margin in (1.02, 2.04)
        )
        middle = np.asarray(cv2.resize(wide[48:144, 48:144], (192, 192)))
        assert np.abs(middle - narrow).mean() < 0.05 * narrow.mean()
        assert wide.sum() == pytest.approx(wide[48:144, 48:144].sum(), rel=0.02)


@pytest.mark.parametrize("region", EXPRESSION_REGIONS)
def test_an_expression_leaves_no_edges(region: Region) -> None:
    """The displacement of an elastic region fades out at its edge: a smooth ramp stays smooth, which it
    does not when blended with a shifted copy of itself.
    """
    parameters = replace(
        sample_fake_parameters(np.random.default_rng(0), region=region),
        shift=(0.0, 0.06),
        gain=(1.0, 1.0, 1.0),
        offset=(0.0, 0.0, 0.0),
        saturation=1.0,
        detail=1.0,
    )
    elastic_image, shifted_image = (
        make_fake(RAMP, replace(parameters, elastic=elastic, feather=feather))[0].astype(int)
        for elastic, feather in ((True, 0.9), (False, 0.06))
    )
    assert not np.array_equal(elastic_image, RAMP)
    assert np.abs(np.diff(elastic_image, axis=1)).max() < 0.5 * np.abs(np.diff(shifted_image, axis=1)).max()


def test_a_donor_is_matched_to_the_shading_of_the_face() -> None:
    """Matching at a scale removes a donor's light from one side; matching whole channels does not."""
    dark = np.linspace(0.4, 1.6, FACE.shape[1])[None, :, None]
    donor = np.clip(FACE * dark, 0, 255).astype(np.uint8)
    parameters = replace(
        sample_fake_parameters(np.random.default_rng(0), strength=0.01, region="face", outside=False),
        opacity=1.0,
        detail=1.0,
    )
    near, whole = (
        np.abs(
            make_fake(FACE, replace(parameters, colour_scale=scale), donor=donor)[0].astype(int) - FACE
        ).mean()
        for scale in (0.1, 0.0)
    )
    assert near < 0.7 * whole


def test_a_seed_gives_the_same_fake() -> None:
    """Equal states of the random generator give equal fakes."""
    first, _ = self_blend(FACE, np.random.default_rng(3))
    again, _ = self_blend(FACE, np.random.default_rng(3))
    other, _ = self_blend(FACE, np.random.default_rng(4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_jitter_is_small() -> None:
    """Jittered parameters change a fake by less than the fake differs from the face."""
    rng = np.random.default_rng(5)
    parameters = sample_fake_parameters(rng, strength=2.0, region="face", outside=False)
    now, _ = make_fake(FACE, parameters)
    later, _ = make_fake(FACE, parameters.jitter(rng))
    step = np.abs(now.astype(int) - later).mean()
    assert 0 < step < np.abs(now.astype(int) - FACE).mean()


def test_invalid_arguments_raise() -> None:
    """Shapes and strength are checked."""
    parameters = sample_fake_parameters(np.random.default_rng(0))
    with pytest.raises(ValueError, match="shape"):
        make_fake(FACE[..., 0], parameters)
    with pytest.raises(ValueError, match="donor"):
        make_fake(FACE, parameters, donor=FACE[:-1])
    with pytest.raises(ValueError, match="strength"):
        sample_fake_parameters(np.random.default_rng(0), strength=0)
