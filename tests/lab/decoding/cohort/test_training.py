"""What networks of a study learn from: measured trials as if left out, and synthetic ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from lab.decoding.cohort.subjects import Member
from lab.decoding.cohort.training import trials

N, HELD, VOXELS, PARTS = 10, 4, 5, 3


def world() -> tuple[SimpleNamespace, SimpleNamespace, SimpleNamespace]:
    """One known subject, a cohort, and a network whose token space is the tokens' own."""
    draw = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    tuning = SimpleNamespace(
        weights=some(PARTS, VOXELS), spread=torch.zeros(VOXELS), power=torch.ones(2), common=some(VOXELS, 2)
    )
    known = SimpleNamespace(
        member=SimpleNamespace(index=torch.randperm(N, generator=draw), trials=some(N, VOXELS)),
        reading=SimpleNamespace(left_out=some(N, PARTS), tuning=tuning),
        voxels=SimpleNamespace(readout=some(VOXELS, PARTS), offset=some(PARTS)),
    )
    seen = SimpleNamespace(tokens=some(20, PARTS), latents=some(20, 2))
    space = SimpleNamespace(tokens=lambda z: z, points=lambda t: t)
    network = SimpleNamespace(space=space, config={"n_tokens": 1})
    return known, SimpleNamespace(seen=seen, external=torch.arange(12, 20)), network


def test_read_outs_of_measured_trials_are_of_a_fit_without_them_and_held_pictures_stay_out() -> None:
    known, cohort, network = world()
    prepare = trials([known], cohort, network, external=True, latents=True, held=HELD)
    voxels, x, base, tokens, latents = prepare(torch.arange(40))
    rows = [int((known.member.trials == row).all(1).nonzero()) for row in x[:20]]
    assert {int(known.member.index[k]) for k in rows} == set(range(HELD, N))
    torch.testing.assert_close(base[:20, 0], known.reading.left_out[rows])
    torch.testing.assert_close(tokens[:20], cohort.seen.tokens[known.member.index[rows]])
    made = tokens[20:]  # of pictures that nobody saw; without noise what tuning predicts of them
    torch.testing.assert_close(x[20:], (made - voxels.offset) @ known.reading.tuning.weights)
    torch.testing.assert_close(base[20:, 0], x[20:] @ voxels.readout + voxels.offset)
    shown = [int((cohort.seen.tokens == row).all(1).nonzero()) for row in made]
    assert set(shown) == set(range(12, 20))
    torch.testing.assert_close(latents[20:], cohort.seen.latents[shown])
    _, x, _, _, latents = trials([known], cohort, network, external=False, latents=False)(torch.arange(40))
    assert len({tuple(row.tolist()) for row in x}) == N and latents is None


def test_the_first_trials_are_scaled_by_themselves_and_so_is_what_is_tested() -> None:
    draw = torch.Generator().manual_seed(0)
    raw, test, clear = (torch.randn(n, VOXELS, generator=draw) * 3 + 7 for n in (N, 4, 4))

    def member(n: int) -> Member:
        mean, scale = raw[:n].mean(0), raw[:n].std(0)
        rows = [(x - mean) / scale for x in (raw[:n], test)]
        places, none = np.zeros((VOXELS, 3)), SimpleNamespace()
        return Member("S1", torch.arange(n), *rows, places, 0.1, none, mean, scale, (clear - mean) / scale)

    found, expected = member(N).first(6), member(6)
    for name in ("index", "trials", "test", "mean", "scale", "clear_test"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-4)
