"""Read a subject linearly: ridge and Bayes decoding of the same trials, weighed on left-out ones.

Ridge from voxels to components of the tokens learns from this subject alone; Bayes decoding knows from others
what voxels are tuned to (`brainit.voxels.tuning`) and leads where trials are few. Which of them is to be
trusted, and how far, is found on trials that both left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from brainit.errors import InputError
from brainit.training.stacking import fit_weights
from brainit.voxels.tuning import TokenSpace, Tuning, fit_tuning

FOLDS = 4
LEAST = 24
"""Trials below which nothing can be left out to weigh read-outs by."""
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-3, 6))
"""Candidates, times the number of voxels (mean eigenvalue of the trials' Gram matrix)."""
_BLOCKS = (0, 8, 24, 64, 128)


@dataclass(frozen=True)
class Reading:
    """What was found of one subject.

    Parameters
    ----------
    tuning : Tuning
    readout : float tensor of shape (n_voxels, n_components)
        Components are ``offset + z-scored voxels @ readout``.
    offset : float tensor of shape (n_components,)
    bayes : float tensor of shape (n_voxels, n_components)
        Bayes decoding alone.
    left_out : float tensor of shape (n_trials, n_components)
        What the read-out says of each trial, fitted without it (weights apart).
    bayes_left_out : float tensor of shape (n_trials, n_components)
        The same of Bayes decoding alone.
    weights : dict of str to (float, float)
        Of ridge and of Bayes decoding, by block of components.
    """

    tuning: Tuning
    readout: torch.Tensor
    offset: torch.Tensor
    bayes: torch.Tensor
    left_out: torch.Tensor
    bayes_left_out: torch.Tensor
    weights: dict[str, tuple[float, float]]


def read(
    voxels: torch.Tensor,
    tokens: torch.Tensor,
    space: TokenSpace,
    prior: torch.Tensor,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Reading:
    """Fit both read-outs and weigh them.

    Parameters
    ----------
    voxels : float tensor of shape (n_trials, n_voxels)
        z-scored over these trials.
    tokens : float tensor of shape (n_trials, n_values)
        Of the pictures shown.
    space : TokenSpace
    prior : float tensor of shape (n_components, n_components)
        See `brainit.voxels.tuning.fit_prior`.
    seed : int
        Which trials are left out together.
    groups : array of shape (n_trials,), optional
        Trials of one group are left out together; default each its own. Give stimuli where they repeat.

    Raises
    ------
    InputError
        Fewer than `LEAST` trials.
    """
    if len(voxels) < LEAST:
        raise InputError(
            f"{len(voxels)} trials are too few to read a subject; at least {LEAST} are needed: scan more, or "
            "give ridge's defaults (brainlab brain reconstruct) a try"
        )
    points = space.points(tokens)
    offset = points.mean(0)
    points = points - offset
    fold = _folds(len(voxels), seed, groups).to(voxels.device)
    power = space.back.square().sum(1)
    errors = torch.zeros(len(PENALTIES), device=voxels.device)
    found = [torch.empty_like(points) for _ in PENALTIES]
    bayes = torch.empty_like(points)
    for k in range(FOLDS):
        inside, out = fold != k, fold == k
        for j, weights in enumerate(_ridges(voxels[inside], points[inside])):
            found[j][out] = voxels[out] @ weights
        bayes[out] = voxels[out] @ fit_tuning(points[inside], voxels[inside], prior).readout()
    for j, guess in enumerate(found):
        errors[j] = ((guess - points).square().mean(0) * power).sum()
    best = int(errors.argmin())
    blocks = _blocks(points.shape[1])
    shares = fit_weights(blocks, points, bayes, found[best], residual=False, how="stack")
    tuning = fit_tuning(points, voxels, prior)
    alone = tuning.readout()
    ridge = next(iter(_ridges(voxels, points, (PENALTIES[best],))))
    mixed, left_out = torch.empty_like(alone), torch.empty_like(points)
    for name, columns in blocks.items():
        a, b = shares[name]
        mixed[:, columns] = a * ridge[:, columns] + b * alone[:, columns]
        left_out[:, columns] = a * found[best][:, columns] + b * bayes[:, columns]
    return Reading(tuning, mixed, offset, alone, left_out + offset, bayes + offset, shares)


def _folds(n: int, seed: int, groups: np.ndarray | None) -> torch.Tensor:
    kinds, group = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(kinds)) % FOLDS
    return torch.from_numpy(order[group])


def _blocks(n: int) -> dict[str, torch.Tensor]:
    edges = [e for e in _BLOCKS if e < n] + [n]
    return {f"{a}-{b}": torch.arange(a, b) for a, b in pairwise(edges)}


def _ridges(
    voxels: torch.Tensor, points: torch.Tensor, penalties: tuple[float, ...] = PENALTIES
) -> list[torch.Tensor]:
    """Return weights (n_voxels, n_components) for each penalty."""
    x, y = voxels.double(), points.double()
    dual = len(x) <= x.shape[1]
    gram, goal = (x @ x.T, y) if dual else (x.T @ x, x.T @ y)
    one = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    out = []
    for penalty in penalties:
        solved = torch.cholesky_solve(goal, torch.linalg.cholesky(gram + penalty * x.shape[1] * one))
        out.append((x.T @ solved if dual else solved).to(voxels))
    return out
