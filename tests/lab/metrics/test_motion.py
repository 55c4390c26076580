"""Scores of movement: the same is perfect, a frozen clip is 1, another movement is 2."""

from __future__ import annotations

import torch

from lab.metrics import motion


def clips(seed: int) -> torch.Tensor:
    return torch.rand(3, 5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_gates() -> None:
    one, other = clips(0), clips(1)
    assert motion.change_error(one, one).tolist() == [0, 0, 0]
    assert motion.energy_ratio(one, one).tolist() == [1, 1, 1]
    torch.testing.assert_close(motion.agreement(one, one), torch.ones(3, dtype=torch.float64))
    frozen = motion.still(one)
    assert motion.energy(frozen).tolist() == [0, 0, 0] and motion.agreement(frozen, one).tolist() == [0, 0, 0]
    torch.testing.assert_close(motion.change_error(frozen, one), torch.ones(3, dtype=torch.float64))
    assert bool((motion.change_error(other, one) - 2).abs().max() < 0.5)


def test_brightness_is_no_movement_and_flicker_is() -> None:
    one = 0.5 * clips(0)
    torch.testing.assert_close(motion.change_error(one + 0.3, one), torch.zeros(3, dtype=torch.float64))
    flicker = one + 0.2 * torch.tensor([0.0, 1, 0, 1, 0]).view(1, 5, 1, 1, 1)
    assert bool((motion.energy_ratio(flicker, one) > 1.2).all())
    assert bool((motion.change_error(flicker, one) > 0.2).all())


def test_two_still_clips_move_alike() -> None:
    still = motion.still(clips(0))
    assert motion.energy_ratio(still, still).tolist() == [1, 1, 1]
    assert motion.change_error(still, still).tolist() == [0, 0, 0]
    assert motion.energy_ratio(still, clips(0)).tolist() == [0, 0, 0]


def test_by_the_formula() -> None:
    one, other = clips(0), clips(1)
    for found, i in ((motion.change_error(one, other), 1), (motion.energy_ratio(one, other), 2)):
        a, b = one[i].double().diff(dim=0), other[i].double().diff(dim=0)
        wanted = (a - b).square().mean() if i == 1 else a.square().mean()
        torch.testing.assert_close(found[i], wanted / b.square().mean())
