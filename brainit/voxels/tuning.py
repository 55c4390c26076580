"""What voxels are tuned to, with a prior that other subjects' voxels teach, and Bayes decoding with it.

Pictures are points z in the space of whitened principal components of their tokens. A voxel answers::

    x = z . w + e,   w ~ N(0, t^2 S),   e of variance s^2, partly common to voxels,

with S (trace = number of components) the same for all voxels of all subjects: it is learned from subjects
with many trials by expectation maximisation. Signal t^2 and noise s^2 are a voxel's alone, of greatest
marginal likelihood on a grid of ratios. Decoding is the posterior mean of z ~ N(0, 1) given all voxels, each
with the noise s^2 plus what the doubt about w adds, tr Cov(w); the leading directions of what is left over in
the fitted trials are noise that voxels share. With S = 1 the encoding model is plain ridge. See Naselaris et
al. 2009 (Neuron 63) for the encoding model and its inversion; the prior is an empirical Bayes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from brainit.errors import InputError

RATIOS = torch.logspace(-5, 1, 25)
"""Candidates of t^2 / s^2; the least means that the voxel says nothing."""
_SILENT = 3e-5
_COMMON = 48  # directions of common noise at most
_TRIALS_EACH = 6  # trials that one direction needs
_ROUNDS = 4
_FLOOR = 1e-6


@dataclass(frozen=True)
class TokenSpace:
    """Whitened principal components of flat tokens.

    Parameters
    ----------
    mean : float tensor of shape (n_values,)
    back : float tensor of shape (n_components, n_values)
        Tokens are ``mean + z @ back``; its rows are orthogonal.
    """

    mean: torch.Tensor
    back: torch.Tensor

    @classmethod
    def fit(cls, tokens: torch.Tensor, n_components: int, most: int = 6000) -> TokenSpace:
        """Fit on (n_pictures, n_values), at most ``most`` evenly spaced rows; these bound the components."""
        pick = torch.linspace(0, len(tokens) - 1, min(most, len(tokens)), device=tokens.device).long()
        x = tokens[pick].double()
        mean = x.mean(0)
        x = x - mean
        dual = len(x) <= x.shape[1]
        power, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
        power, vectors = power.flip(0), vectors.flip(1)
        keep = min(n_components, int((power > power[0] * 1e-10).sum()))
        root, vectors = power[:keep].sqrt(), vectors[:, :keep]
        axes = x.T @ (vectors / root) if dual else vectors
        return cls(mean.float(), ((axes * root).T / len(x) ** 0.5).float())

    def to(self, device: str | torch.device) -> TokenSpace:
        """Return the same space on a device."""
        return TokenSpace(self.mean.to(device), self.back.to(device))

    def points(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return components (n, n_components) of flat tokens (n, n_values)."""
        return (tokens - self.mean) @ (self.back / self.back.square().sum(1, keepdim=True)).T

    def tokens(self, points: torch.Tensor) -> torch.Tensor:
        """Return flat tokens of components."""
        return self.mean + points @ self.back


@dataclass(frozen=True)
class Tuning:
    """Fitted voxels.

    Parameters
    ----------
    weights : float tensor of shape (n_components, n_voxels)
        Posterior mean of w.
    noise : float tensor of shape (n_voxels,)
        s^2.
    doubt : float tensor of shape (n_voxels,)
        tr Cov(w): variance that not knowing w adds to a prediction.
    common : float tensor of shape (n_voxels, k)
        Orthonormal directions of noise that voxels share, each voxel in units of its noise and doubt.
    power : float tensor of shape (k,)
        Variance of the common noise along them, beside 1 of every voxel's own.
    """

    weights: torch.Tensor
    noise: torch.Tensor
    doubt: torch.Tensor
    common: torch.Tensor
    power: torch.Tensor

    @property
    def spread(self) -> torch.Tensor:
        """Standard deviation of what tuning does not explain, (n_voxels,)."""
        return (self.noise + self.doubt).clamp(min=_FLOOR).sqrt()

    @property
    def evidence(self) -> torch.Tensor:
        """What each voxel's response adds to the picture, (n_voxels, n_components): noise⁻¹ w."""
        scaled = (self.weights / self.spread).T
        shrink = self.power / (1 + self.power)
        whitened = scaled - self.common @ (shrink[:, None] * (self.common.T @ scaled))
        return whitened / self.spread[:, None]

    def readout(self) -> torch.Tensor:
        """Return weights (n_voxels, n_components): posterior mean of z is ``x @ weights``."""
        evidence = self.evidence
        information = torch.eye(len(self.weights)).to(evidence) + self.weights @ evidence
        return torch.linalg.solve(information, evidence.T).T


def fit_tuning(points: torch.Tensor, voxels: torch.Tensor, prior: torch.Tensor) -> Tuning:
    """Fit voxels of one subject.

    Parameters
    ----------
    points : float tensor of shape (n_trials, n_components)
    voxels : float tensor of shape (n_trials, n_voxels)
        z-scored.
    prior : float tensor of shape (n_components, n_components)
        S.

    Raises
    ------
    InputError
        Unequal numbers of trials or components, or fewer than 8 trials.
    """
    if len(points) != len(voxels) or points.shape[1] != len(prior) or len(points) < 8:
        raise InputError(
            f"tuning needs as many pictures as trials, at least 8, in {len(prior)} components; got "
            f"{tuple(points.shape)} for {tuple(voxels.shape)} voxels"
        )
    found = _posterior(points, voxels, prior)
    weights = found.to_weights @ found.mean
    doubt = found.to_weights.square().sum(0) @ found.variance
    left = (voxels - points @ weights) / (found.noise + doubt).clamp(min=_FLOOR).sqrt()
    return Tuning(weights, found.noise, doubt, *_common_noise(left))


def _common_noise(left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the leading directions (n_voxels, k) of standardised residuals and their excess variance."""
    n = len(left)
    k = min(_COMMON, n // _TRIALS_EACH, left.shape[1])
    draw = torch.Generator().manual_seed(0)
    axes = torch.randn(left.shape[1], k, generator=draw).to(left)
    for _ in range(_ROUNDS):  # subspace iteration: the leading directions stand out
        axes = torch.linalg.qr(left.T @ (left @ axes)).Q
    inner, turn = torch.linalg.eigh((left @ axes).T @ (left @ axes) / n)
    return axes @ turn, (inner - 1).clamp(min=0)


def fit_prior(
    subjects: Iterable[tuple[torch.Tensor, torch.Tensor]], n_components: int, rounds: int = 5
) -> torch.Tensor:
    """Learn S from subjects, each ``(points, voxels)`` as for :func:`fit_tuning`."""
    data = list(subjects)
    prior = torch.eye(n_components).to(data[0][0])
    for _ in range(rounds):
        total, count = torch.zeros_like(prior), 0
        for points, voxels in data:
            moment, n = _posterior(points, voxels, prior).moment()
            total, count = total + moment, count + n
        if count == 0:
            raise InputError(
                "no voxel of these subjects says anything of the pictures; nothing to learn from"
            )
        prior = total * (n_components / total.trace())
    return prior


@dataclass(frozen=True)
class _Posterior:
    """In coordinates where prior and design are both diagonal: w = to_weights @ mean."""

    to_weights: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    noise: torch.Tensor
    ratio: torch.Tensor

    def moment(self) -> tuple[torch.Tensor, int]:
        """Sum over voxels of E[w wᵀ] / t^2, and how many voxels."""
        heard = self.ratio > _SILENT
        signal = (self.ratio * self.noise)[heard]
        mean = self.mean[:, heard] / signal.sqrt()
        inner = mean @ mean.T + torch.diag((self.variance[:, heard] / signal).sum(1))
        return self.to_weights @ inner @ self.to_weights.T, int(heard.sum())


def _posterior(points: torch.Tensor, voxels: torch.Tensor, prior: torch.Tensor) -> _Posterior:
    power, axes = torch.linalg.eigh(prior.double())
    root = (axes * power.clamp(min=1e-8).sqrt()) @ axes.T
    design = points.double()
    strength, turn = torch.linalg.eigh(root @ (design.T @ design) @ root)
    strength = strength.clamp(min=0).to(points)
    to_weights = (root @ turn).to(points)
    seen = to_weights.T @ (points.T @ voxels)
    n, total = len(points), voxels.square().sum(0)
    likely = torch.full_like(total, -torch.inf)
    noise, ratio = torch.ones_like(total), torch.zeros_like(total)
    for candidate in RATIOS.tolist():
        gain = candidate / (1 + candidate * strength)
        left = ((total - seen.square().T @ gain) / n).clamp(min=_FLOOR)
        likelihood = -n / 2 * left.log() - 0.5 * torch.log1p(candidate * strength).sum()
        better = likelihood > likely
        likely = torch.where(better, likelihood, likely)
        noise, ratio = torch.where(better, left, noise), ratio.masked_fill(better, candidate)
    gain = ratio / (1 + ratio * strength[:, None])
    return _Posterior(to_weights, gain * seen, gain * noise, noise, ratio)
