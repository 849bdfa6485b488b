"""What the trunk trains on: pairs as alike as can be, the same for everyone who asks again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from train.sampling.config import SamplingConfig
from train.sampling.pools import Batches, Pool, draw_batch, read_pool


def test_a_group_is_kept_out(clips: Path) -> None:
    """The groups for validation are in no training pool, and the other side holds nothing else."""
    pool = read_pool(clips, ("kept-out",), 1.02)
    assert set(pool.real) == {"a", "b"}
    assert {method: [group for group, _ in found] for method, found in pool.fake.items()} == {
        "swap": ["a", "b"]
    }
    side = read_pool(clips, ("kept-out",), 1.02, validation=True)
    assert set(side.real) == {"kept-out"}
    assert len(side.clips()) == 2


def test_a_batch_is_half_real(clips: Path) -> None:
    """Real and forged take turns; a real crop has no region, a forged one has one where it is known."""
    rng = np.random.default_rng(0)
    pools = [read_pool(clips, (), 1.02)]
    crops, labels, regions, known = draw_batch(pools, 64, 48, rng, strength=1.0, synthetic_share=1.0)
    assert crops.shape == (64, 48, 48, 3)
    assert crops.dtype == torch.uint8
    assert labels.tolist() == [0, 1] * 32
    assert known.all()
    assert (regions[labels == 0] == 0).all()
    assert (regions[labels == 1].amax((1, 2)) > 0.2).all()


def test_a_forgery_without_an_original_has_no_region(clips: Path) -> None:
    """It stands beside some other real crop, and its region is not learned from."""
    pool = read_pool(clips, (), 1.02)
    orphan = Pool(pool.name, {"elsewhere": pool.real["a"]}, pool.fake)
    _, labels, regions, known = draw_batch(
        [orphan], 16, 48, np.random.default_rng(0), strength=1.0, synthetic_share=0.0
    )
    assert (known == (labels == 0)).all()
    assert (regions == 0).all()


def test_a_made_forgery_differs_only_in_its_region(clips: Path) -> None:
    """Beside a made forgery stands the same frame under the same variation."""
    rng = np.random.default_rng(3)
    pools = [read_pool(clips, (), 1.02)]
    crops, _, regions, _ = draw_batch(pools, 32, 96, rng, strength=1.0, synthetic_share=1.0)
    inside, outside = [], []
    for real, fake, region in zip(crops[::2], crops[1::2], regions[1::2], strict=True):
        change = (real.float() - fake.float()).abs().mean(-1)
        inside.append(float(change[region > 0.3].mean()))
        outside.append(float(change[region < 0.01].mean()))
    assert np.median(inside) > 4 * np.median(outside)


def test_a_donor_looks_where_the_face_looks() -> None:
    """Half the faces are bright on the left, half on the right: who is swapped in is as the face was."""
    ramp = np.tile(np.linspace(40, 210, 192).astype(np.uint8)[None, :, None], (192, 1, 3))
    faces = (ramp, np.ascontiguousarray(ramp[:, ::-1]))
    pool = Pool("ramps", {str(n): (faces[n % 2][None],) for n in range(20)}, {})
    drawn = draw_batch([pool], 400, 64, np.random.default_rng(0), strength=0.05, synthetic_share=1.0)
    crops = drawn[0].float().mean(-1)
    sides = crops[..., 40:].mean((1, 2)) - crops[..., :24].mean((1, 2))
    lit = sides[::2].abs() > 20
    assert lit.sum() > 150
    # Some hundred pairs are no swaps; of sixty swaps with any face, thirty would be of the other kind.
    centre = crops[:, 16:48, 40:48].mean((1, 2)) - crops[:, 16:48, 16:24].mean((1, 2))
    assert (centre[1::2][lit] * sides[::2][lit] < 0).sum() <= 6


def test_sets_give_their_shares(clips: Path) -> None:
    """A set with nearly all of the shares gives nearly all of the crops."""
    pool = read_pool(clips, (), 1.02)
    white = {group: tuple(np.full_like(clip, 255) for clip in found) for group, found in pool.real.items()}
    pools = [pool, replace(pool, real=white, fake={})]
    crops, *_ = draw_batch(
        pools, 64, 32, np.random.default_rng(0), strength=1.0, synthetic_share=1.0, set_weights=(1.0, 1e-9)
    )
    faces = crops[::2].float().std((1, 2, 3)) > 10
    assert faces.all()


def test_a_step_has_one_batch(clips: Path) -> None:
    """A step's batch is the same whoever asks for it and when; another process draws another."""
    config = SamplingConfig(sizes=(32, 48), crops=(16, 16), batch_size=8)
    pools = [read_pool(clips, (), 1.02)]
    batches = Batches(pools, config, seed=0)
    assert len(batches) == 4
    assert [batches[step][0].shape[1] for step in range(4)] == [32, 32, 48, 48]
    assert torch.equal(batches[2][0], Batches(pools, config, seed=0)[2][0])
    assert not torch.equal(batches[0][0], Batches(pools, config, seed=0, rank=1)[0][0])


def test_two_processes_share_the_crops() -> None:
    """What a stage sees is counted over all processes."""
    assert SamplingConfig(sizes=(32,), crops=(64,), batch_size=8).steps(2) == [32] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 10},
        {"crops": (1,)},
        {"crops": (16, 16)},
        {"synthetic_share": (0.5, 1.5)},
        {"set_weights": (1, 0)},
    ],
)
def test_impossible_runs_are_refused(wrong: dict[str, object]) -> None:
    """A run whose values disagree is not started."""
    with pytest.raises(ValueError, match=r"batch_size|same number|train nothing|synthetic_share|set_weights"):
        SamplingConfig(**wrong)  # type: ignore[arg-type]
