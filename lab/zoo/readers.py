"""Simulated people read by ridge regression: what their voxels say of the tokens of a picture.

A person at one noise ceiling, read from so many trials, is a `Reader`. Three ridges are fitted: one on all
its trials and one on each half, so that a picture that was scanned can be predicted without having been
fitted on (cross-fitting).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-2, 7))
"""Candidates, times the number of voxels: the mean eigenvalue of the Gram matrix is of that order."""
_SOURCES = 24


@dataclass(frozen=True)
class Condition:
    """Noise ceiling of one trial (mean over voxels), and the share of scanned pictures that is fitted on."""

    ceiling: float
    share: float = 1.0


@dataclass(frozen=True)
class Linear:
    """``standardised voxels @ weights + bias``."""

    mean: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def __call__(self, voxels: torch.Tensor) -> torch.Tensor:
        return ((voxels - self.mean) / self.scale) @ self.weights + self.bias


class Scanner:
    """One simulated person at one noise ceiling: every look at a picture has noise of its own.

    Parameters
    ----------
    answers : float32 tensor of shape (n_pictures, n_voxels)
        Without noise.
    ceiling : float
        Of one trial, mean over voxels.
    seed : int
        Ceilings of voxels and what noise they share.
    shared : float
        Share of the noise variance that comes from a few sources common to all voxels.
    """

    def __init__(self, answers: torch.Tensor, ceiling: float, seed: int, shared: float = 0.2) -> None:
        self.answers, self.seed, self.shared = answers, seed, shared
        device, n_voxels = answers.device, answers.shape[1]
        self.draw = torch.Generator().manual_seed(seed)
        own = _beta(6 * ceiling, 6 * (1 - ceiling), n_voxels, seed).clamp(0.01, 0.98)
        self.ceiling = torch.where(answers.std(0).cpu() > 0, own, 0.0).to(device)
        loadings = torch.randn(n_voxels, _SOURCES, generator=self.draw)
        self.loadings = (loadings / loadings.norm(dim=1, keepdim=True)).to(device)

    def look(
        self, index: torch.Tensor, repeats: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return voxels (len(index), n_voxels), averaged over ``repeats`` presentations."""
        size, device = (len(index), len(self.ceiling)), self.answers.device
        alone = torch.randn(size, generator=generator, device=device)
        common = torch.randn(len(index), _SOURCES, generator=generator, device=device) @ self.loadings.T
        noise = (1 - self.shared) ** 0.5 * alone + self.shared**0.5 * common
        return self.clear(index) + ((1 - self.ceiling) / repeats).sqrt() * noise

    def clear(self, index: torch.Tensor) -> torch.Tensor:
        """Return voxels (len(index), n_voxels) without noise."""
        return self.ceiling.sqrt() * self.answers[index]


class Reader(Scanner):
    """One simulated person at one noise ceiling, with the ridges from voxels to tokens.

    Parameters
    ----------
    answers : float32 tensor of shape (n_pictures, n_voxels)
        Without noise; the first ``n_scanned`` pictures are those that were scanned.
    tokens : float32 tensor of shape (n_pictures, n_tokens * width)
    condition : Condition
    n_scanned : int
    seed : int
        Ceilings, noise of the fitted trials and which pictures these are.
    shared : float
        As in `Scanner`.
    """

    def __init__(
        self,
        answers: torch.Tensor,
        tokens: torch.Tensor,
        condition: Condition,
        n_scanned: int,
        seed: int,
        shared: float = 0.2,
    ) -> None:
        super().__init__(answers, condition.ceiling, seed, shared)
        self.n_scanned, device = n_scanned, answers.device
        each = max(8, round(condition.share * n_scanned / 2))  # as many of one half as of the other
        order = torch.randperm(n_scanned, generator=self.draw)
        scanned = torch.cat([order[order % 2 == k][:each] for k in (0, 1)]).to(device)
        voxels = self.look(scanned, 1, torch.Generator(device=device).manual_seed(seed))
        goals = tokens[scanned]
        odd = scanned % 2 == 1
        sides = [(voxels[~odd], goals[~odd]), (voxels[odd], goals[odd])]
        penalty = _choose(sides[0], sides[1])
        self.halves = [_ridge(*side, penalty) for side in sides]
        self.whole = _ridge(voxels, goals, 2 * penalty)

    def predict(self, index: torch.Tensor, repeats: int) -> torch.Tensor:
        """Predict tokens from fresh trials; of a scanned picture by the half that does not contain it."""
        voxels = self.look(index, repeats)
        even, odd = (half(voxels) for half in self.halves)
        out = torch.where((index % 2 == 0)[:, None], odd, even)
        return torch.where((index < self.n_scanned)[:, None], out, self.whole(voxels))


def _beta(a: float, b: float, n: int, seed: int) -> torch.Tensor:
    import numpy as np

    return torch.from_numpy(np.random.default_rng([seed, 79]).beta(a, b, n).astype(np.float32))


def _choose(fitted: tuple[torch.Tensor, torch.Tensor], left: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Return the penalty whose fit on one half predicts the other best, tokens weighted by their spread."""
    spread = fitted[1].std(0) + 1e-6
    errors = []
    for candidate in PENALTIES:
        penalty = candidate * fitted[0].shape[1]
        errors.append(float((((_ridge(*fitted, penalty)(left[0]) - left[1]) / spread) ** 2).mean()))
    return PENALTIES[errors.index(min(errors))] * fitted[0].shape[1]


def _ridge(voxels: torch.Tensor, goals: torch.Tensor, penalty: float) -> Linear:
    mean, scale = voxels.mean(0), voxels.std(0) + 1e-6
    x, bias = ((voxels - mean) / scale).double(), goals.mean(0)
    y = (goals - bias).double()
    n, p = x.shape
    if n < p:
        gram = x @ x.T + penalty * torch.eye(n, dtype=x.dtype, device=x.device)
        weights = x.T @ torch.cholesky_solve(y, torch.linalg.cholesky(gram))
    else:
        gram = x.T @ x + penalty * torch.eye(p, dtype=x.dtype, device=x.device)
        weights = torch.cholesky_solve(x.T @ y, torch.linalg.cholesky(gram))
    return Linear(mean, scale, weights.float(), bias)
