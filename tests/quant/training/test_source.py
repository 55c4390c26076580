"""Points of whole trajectories, whose errors are summed along them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from quant.training.source import PATH, Source, _spread
from quant.training.student import unshrunk


def test_a_path_is_of_one_sample_in_even_strides(recorded) -> None:
    source = Source(recorded("pixart"), 2 * PATH)
    generator = torch.Generator().manual_seed(0)
    batch, length = source.draw_paths(generator)
    assert length == min(PATH, source.n_timesteps) and len(batch.timestep) % length == 0
    for path in batch.timestep.unflatten(0, (-1, length)):
        places = [source.recording.timesteps.index(float(t)) for t in path]
        assert len({b - a for a, b in pairwise(places)}) == 1


def test_a_smaller_scale_does_not_pay() -> None:
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 4, 50, 50, generator=generator)
    losses = {scale: float(unshrunk(scale * (target + noise), target).mean()) for scale in (0.5, 0.8, 1.0)}
    assert min(losses, key=lambda scale: losses[scale]) == 1.0
    assert float((0.5 * (target + noise) - target).square().mean()) < losses[0.5]  # plain error prefers it
    assert not unshrunk(target, target).any()


@pytest.mark.parametrize(("samples", "steps"), [(3, 20), (7, 20), (21, 20), (17, 50), (4, 20), (1, 5)])
def test_fixed_points_are_as_many_as_asked_and_differ(samples: int, steps: int) -> None:
    for count in (1, steps // 2, steps, 64, samples * steps, 2 * samples * steps):
        found = _spread(range(samples), steps, count)
        assert len(found) == len(set(found)) == min(count, samples * steps)
        times = [[step for _, step in found].count(t) for t in range(steps)]
        assert max(times) - min(times) <= 1
