"""Voxel tuning with a prior that others teach, on voxels whose tuning is known."""

from __future__ import annotations

import pytest
import torch

from brainit.errors import InputError
from brainit.voxels.tuning import TokenSpace, fit_prior, fit_tuning

D, V = 12, 80


def world(seed: int, n: int, noise: float = 1.5, common: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Points, voxels of a low-rank tuning that all share, and their weights."""
    draw = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(7))).Q[:, :3]
    weights = axes @ torch.randn(3, V, generator=draw)
    points = torch.randn(n, D, generator=draw)
    noises = noise * torch.randn(n, V, generator=draw)
    noises += common * torch.randn(n, 1, generator=draw) * torch.randn(V, generator=draw)
    return points, points @ weights + noises, weights


def errors(weights: torch.Tensor, n: int) -> float:
    return float((weights - world(1, n)[2]).square().mean())


def test_prior_finds_what_voxels_have_in_common_and_helps_where_trials_are_few() -> None:
    prior = fit_prior([world(s, 400)[:2] for s in (2, 3)], D)
    assert float(prior.trace()) == pytest.approx(D, rel=1e-4)
    assert (
        float(torch.linalg.eigvalsh(prior.double())[-3:].sum()) > 0.9 * D
    )  # three directions are all there is
    points, voxels, _ = world(1, 30)
    taught, flat = (fit_tuning(points, voxels, s).weights for s in (prior, torch.eye(D)))
    assert errors(taught, 30) < 0.5 * errors(flat, 30)


def test_more_trials_leave_less_doubt() -> None:
    doubts = [float(fit_tuning(*world(1, n)[:2], torch.eye(D)).doubt.mean()) for n in (20, 80, 320)]
    assert doubts[0] > doubts[1] > doubts[2] > 0


def test_readout_is_the_posterior_mean_and_common_noise_is_kept_out_of_it() -> None:
    points, voxels, _ = world(1, 400, common=6.0)
    fitted = fit_tuning(points, voxels, torch.eye(D))
    scaled = fitted.common * fitted.spread[:, None]
    noise = torch.diag(fitted.spread**2) + scaled @ torch.diag(fitted.power) @ scaled.T
    inverse = torch.linalg.inv(noise.double()).float()
    w = fitted.weights
    plain = torch.linalg.solve(torch.eye(D) + w @ inverse @ w.T, w @ inverse).T
    assert torch.allclose(fitted.readout(), plain, atol=1e-3)
    fresh, seen, _ = world(1, 800, common=6.0)
    ours = seen[400:] @ fitted.readout()
    alone = w / fitted.spread
    blind = seen[400:] @ (torch.linalg.solve(torch.eye(D) + alone @ alone.T, alone / fitted.spread).T)
    assert (ours - fresh[400:]).square().mean() < (blind - fresh[400:]).square().mean()


def test_token_space_returns_what_it_can_hold() -> None:
    tokens = torch.randn(40, 5) @ torch.randn(5, 30) + 3
    space = TokenSpace.fit(tokens, 8)
    assert space.back.shape == (5, 30)
    points = space.points(tokens)
    assert torch.allclose(space.tokens(points), tokens, atol=1e-3)
    assert torch.allclose(points.T @ points / 40, torch.eye(5), atol=1e-3)


def test_unequal_trials_are_refused() -> None:
    points, voxels, _ = world(1, 30)
    with pytest.raises(InputError, match="as many pictures as trials"):
        fit_tuning(points[:20], voxels, torch.eye(D))
