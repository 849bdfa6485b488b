"""Tests of the batches that the backbone is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from train.sampling.batches import Batches, draw_batch
from train.sampling.config import SamplingConfig
from train.sampling.pools import Pool, read_pool


def test_half_of_a_batch_is_real(clips: Path) -> None:
    """Real and fake crops alternate; only fake crops have a region."""
    rng = np.random.default_rng(0)
    pools = [read_pool(clips, (), 1.02)]
    crops, labels, regions, known = draw_batch(pools, 64, 48, rng, strength=1.0, synthetic_share=1.0)
    assert crops.shape == (64, 48, 48, 3)
    assert crops.dtype == torch.uint8
    assert labels.tolist() == [0, 1] * 32
    assert known.all()
    assert (regions[labels == 0] == 0).all()
    assert (regions[labels == 1].amax((1, 2)) > 0.2).all()


def test_a_fake_without_an_original_has_no_known_region(clips: Path) -> None:
    """It is paired with any real crop, and its region is marked as unknown."""
    pool = read_pool(clips, (), 1.02)
    orphan = Pool(pool.name, pool.margin, {"elsewhere": pool.real["a"]}, pool.fake)
    _, labels, regions, known = draw_batch(
        [orphan], 16, 48, np.random.default_rng(0), strength=1.0, synthetic_share=0.0
    )
    assert (known == (labels == 0)).all()
    assert (regions == 0).all()


def test_a_synthetic_fake_differs_only_in_its_region(clips: Path) -> None:
    """A synthetic fake is paired with the same frame under the same augmentation."""
    rng = np.random.default_rng(3)
    pools = [read_pool(clips, (), 1.02)]
    crops, _, regions, _ = draw_batch(pools, 32, 96, rng, strength=1.0, synthetic_share=1.0)
    inside, outside = [], []
    for real, fake, region in zip(crops[::2], crops[1::2], regions[1::2], strict=True):
        change = (real.float() - fake.float()).abs().mean(-1)
        inside.append(float(change[region > 0.3].mean()))
        outside.append(float(change[region < 0.01].mean()))
    assert np.median(inside) > 4 * np.median(outside)


def test_a_face_swap_takes_a_donor_of_the_same_pose() -> None:
    """Half of the faces are bright on the left, half on the right; donors are bright on the same side."""
    ramp = np.tile(np.linspace(40, 210, 192).astype(np.uint8)[None, :, None], (192, 1, 3))
    faces = (ramp, np.ascontiguousarray(ramp[:, ::-1]))
    pool = Pool("ramps", 1.02, {str(n): (faces[n % 2][None],) for n in range(20)}, {})
    drawn = draw_batch([pool], 400, 64, np.random.default_rng(0), strength=0.05, synthetic_share=1.0)
    crops = drawn[0].float().mean(-1)
    sides = crops[..., 40:].mean((1, 2)) - crops[..., :24].mean((1, 2))
    lit = sides[::2].abs() > 20
    assert lit.sum() > 150
    # About 60 pairs are swaps; with random donors about 30 of them would be bright on the other side.
    centre = crops[:, 16:48, 40:48].mean((1, 2)) - crops[:, 16:48, 16:24].mean((1, 2))
    assert (centre[1::2][lit] * sides[::2][lit] < 0).sum() <= 6


def test_set_weights_set_the_share_of_each_data_set(clips: Path) -> None:
    """A data set with nearly all of the weight gives nearly all of the crops."""
    pool = read_pool(clips, (), 1.02)
    white = {group: tuple(np.full_like(clip, 255) for clip in found) for group, found in pool.real.items()}
    pools = [pool, replace(pool, real=white, fake={})]
    crops, *_ = draw_batch(
        pools, 64, 32, np.random.default_rng(0), strength=1.0, synthetic_share=1.0, set_weights=(1.0, 1e-9)
    )
    faces = crops[::2].float().std((1, 2, 3)) > 10
    assert faces.all()


def test_a_step_always_has_the_same_batch(clips: Path) -> None:
    """The batch depends on step and process only."""
    config = SamplingConfig(sizes=(32, 48), crops=(16, 16), batch_size=8)
    pools = [read_pool(clips, (), 1.02)]
    batches = Batches(pools, config, seed=0)
    assert len(batches) == 4
    assert [batches[step][0].shape[1] for step in range(4)] == [32, 32, 48, 48]
    assert torch.equal(batches[2][0], Batches(pools, config, seed=0)[2][0])
    assert not torch.equal(batches[0][0], Batches(pools, config, seed=0, rank=1)[0][0])
