"""Identification: whether a reconstruction fits its own stimulus better than the others."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from brainit.errors import InputError
from brainit.metrics import tensors
from brainit.metrics.pixels import check_pair

TWO_WAY_CHANCE = 0.5
Vary = Literal["truth", "reconstruction"]


def correlation_block(reconstruction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson correlation of every stimulus with every reconstruction.

    Parameters
    ----------
    reconstruction, truth : array of shape (n, ...)
        Pictures or features; trailing axes are flattened.

    Returns
    -------
    float64 array of shape (n, n)
        ``[i, j]`` correlates truth i with reconstruction j. NaN where either is constant, as
        ``np.corrcoef`` gives.
    """
    if len(reconstruction) != len(truth):
        raise InputError(
            f"{len(reconstruction)} reconstructions for {len(truth)} stimuli; both must be as many"
        )
    ours, theirs = (torch.from_numpy(np.array(x, np.float64)).flatten(1) for x in (reconstruction, truth))
    if ours.shape != theirs.shape:
        raise InputError(
            f"reconstruction features are {ours.shape[1]} wide but stimulus features {theirs.shape[1]}"
        )
    return tensors.correlations(ours, theirs).numpy()


def two_way(reconstruction: np.ndarray, truth: np.ndarray, vary: Vary = "truth") -> np.ndarray:
    """Two-way identification with all n - 1 distractors, deterministic.

    With R[i, j] the correlation of truth i and reconstruction j:
    ``vary="truth"`` keeps reconstruction j and asks for how many other truths R[i, j] < R[j, j]. It is what
    the released evaluators (MindEye1, MindEye2, Brain-IT) compute, and the default.
    ``vary="reconstruction"`` keeps truth i and asks for how many other reconstructions R[i, j] < R[i, i], as
    MindEye2's appendix describes. The two differ in value. Ties, and constant features, count as failures.

    Parameters
    ----------
    reconstruction, truth : array of shape (n, ...)
        Features (or pictures), n >= 2.

    Returns
    -------
    float64 array of shape (n,)
        Share of the n - 1 distractors that lose. Chance is `TWO_WAY_CHANCE`.
    """
    if vary not in ("truth", "reconstruction"):
        raise InputError(
            f"vary={vary!r}; allowed are 'truth' (default, the evaluators' form) and 'reconstruction'"
        )
    n = len(truth)
    if n < 2:
        raise InputError(f"two-way identification needs at least 2 test pictures, got {n}")
    block = correlation_block(reconstruction, truth)
    return tensors.beaten(torch.from_numpy(block.T if vary == "reconstruction" else block)).numpy()


def two_way_pix(reconstruction: np.ndarray, truth: np.ndarray, vary: Vary = "truth") -> np.ndarray:
    """`two_way` on the pixels themselves, for pictures in 0..1."""
    return two_way(*check_pair(reconstruction, truth), vary=vary)


def top1(reconstruction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Exact identification, the own stimulus best of all n: bool (n,), chance 1/n, ties fail."""
    return two_way(reconstruction, truth) == 1.0
