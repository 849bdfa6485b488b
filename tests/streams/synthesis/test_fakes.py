"""Forgeries change the face where their mask says, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.data import astronaut

from streams.synthesis.fakes import EXPRESSION_REGIONS, Region, make_fake, sample_fake_parameters, self_blend

FACE = np.ascontiguousarray(astronaut()[60:204, 150:294])
RAMP = np.tile(np.linspace(0, 255, 144).astype(np.uint8)[:, None, None], (1, 144, 3))


def test_only_the_region_changes() -> None:
    """Outside the mask every pixel is the face's own, when the copy is what is changed."""
    for seed in range(8):
        forgery = sample_fake_parameters(np.random.default_rng(seed), outside=False)
        fake, mask = make_fake(FACE, forgery)
        assert fake.shape == FACE.shape
        assert fake.dtype == np.uint8
        assert mask.max() > 0.3
        assert np.array_equal(fake[mask == 0], FACE[mask == 0])
        assert not np.array_equal(fake[mask > 0.3], FACE[mask > 0.3])


@pytest.mark.parametrize("region", EXPRESSION_REGIONS)
def test_an_expression_tears_nothing(region: Region) -> None:
    """Skin moves the further the nearer the middle: a smooth face stays smooth, one blended with a moved
    copy of itself does not.
    """
    forgery = replace(
        sample_fake_parameters(np.random.default_rng(0), region=region),
        shift=(0.0, 0.06),
        gain=(1.0, 1.0, 1.0),
        offset=(0.0, 0.0, 0.0),
        saturation=1.0,
        detail=1.0,
    )
    bent, torn = (
        make_fake(RAMP, replace(forgery, bends=bends, feather=feather))[0].astype(int)
        for bends, feather in ((True, 0.9), (False, 0.06))
    )
    assert not np.array_equal(bent, RAMP)
    assert np.abs(np.diff(bent, axis=1)).max() < 0.5 * np.abs(np.diff(torn, axis=1)).max()


def test_a_donor_takes_on_light_and_shade() -> None:
    """Matched at a scale, a donor lit from one side has the face's light on either side, as a whole not."""
    dark = np.linspace(0.4, 1.6, FACE.shape[1])[None, :, None]
    donor = np.clip(FACE * dark, 0, 255).astype(np.uint8)
    forgery = replace(
        sample_fake_parameters(np.random.default_rng(0), strength=0.01, region="face", outside=False),
        opacity=1.0,
        detail=1.0,
    )
    near, whole = (
        np.abs(
            make_fake(FACE, replace(forgery, colour_scale=scale), donor=donor)[0].astype(int) - FACE
        ).mean()
        for scale in (0.1, 0.0)
    )
    assert near < 0.7 * whole


def test_the_seed_decides() -> None:
    """The same state of the generator gives the same forgery."""
    first, _ = self_blend(FACE, np.random.default_rng(3))
    again, _ = self_blend(FACE, np.random.default_rng(3))
    other, _ = self_blend(FACE, np.random.default_rng(4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_flicker_is_small() -> None:
    """A forgery one frame later differs from itself, by less than from the face."""
    rng = np.random.default_rng(5)
    forgery = sample_fake_parameters(rng, strength=2.0, region="face", outside=False)
    now, _ = make_fake(FACE, forgery)
    later, _ = make_fake(FACE, forgery.jitter(rng))
    step = np.abs(now.astype(int) - later).mean()
    assert 0 < step < np.abs(now.astype(int) - FACE).mean()


def test_bad_input() -> None:
    """Wrong shapes and strengths are refused."""
    forgery = sample_fake_parameters(np.random.default_rng(0))
    with pytest.raises(ValueError, match="shape"):
        make_fake(FACE[..., 0], forgery)
    with pytest.raises(ValueError, match="donor"):
        make_fake(FACE, forgery, donor=FACE[:-1])
    with pytest.raises(ValueError, match="strength"):
        sample_fake_parameters(np.random.default_rng(0), strength=0)
