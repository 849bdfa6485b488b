"""Forgeries change the face where their mask says, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from streams.forge import forge, sample_forgery, self_blend

FACE = np.ascontiguousarray(astronaut()[60:204, 150:294])


def test_only_the_region_changes() -> None:
    """Outside the mask every pixel is the face's own, when the copy is what is changed."""
    for seed in range(8):
        forgery = sample_forgery(np.random.default_rng(seed), outside=False)
        fake, mask = forge(FACE, forgery)
        assert fake.shape == FACE.shape
        assert fake.dtype == np.uint8
        assert mask.max() > 0.3
        assert np.array_equal(fake[mask == 0], FACE[mask == 0])
        assert not np.array_equal(fake[mask > 0.3], FACE[mask > 0.3])


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
    forgery = sample_forgery(rng, strength=2.0, region="face", outside=False)
    now, _ = forge(FACE, forgery)
    later, _ = forge(FACE, forgery.flicker(rng))
    step = np.abs(now.astype(int) - later).mean()
    assert 0 < step < np.abs(now.astype(int) - FACE).mean()


def test_bad_input() -> None:
    """Wrong shapes and strengths are refused."""
    forgery = sample_forgery(np.random.default_rng(0))
    with pytest.raises(ValueError, match="shape"):
        forge(FACE[..., 0], forgery)
    with pytest.raises(ValueError, match="donor"):
        forge(FACE, forgery, donor=FACE[:-1])
    with pytest.raises(ValueError, match="strength"):
        sample_forgery(np.random.default_rng(0), strength=0)
