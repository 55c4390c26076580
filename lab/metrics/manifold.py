"""Precision and recall of a set of pictures by nearest neighbours in a feature space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from lab.errors import InputError

NEIGHBOURS = 3
"""As published."""


class PrecisionRecall(NamedTuple):
    """Shares of pictures, 0 to 1."""

    precision: float
    recall: float


def precision_recall(ours: np.ndarray, reference: np.ndarray, k: int = NEIGHBOURS) -> PrecisionRecall:
    """Precision and recall of Kynkäänniemi et al. (2019).

    A set's manifold is the union of balls around its pictures, each reaching to its k-th nearest neighbour
    in the set. Precision is the share of `ours` inside the reference's manifold (do they look right), recall
    the share of the reference inside ours (is everything there). Both depend on the number of pictures.

    Parameters
    ----------
    ours, reference : array of shape (n, d) and (m, d)
        Features; more than `k` pictures each.

    Raises
    ------
    InputError
        Too few pictures, or features of different width.
    """
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.ndim != 2 or reference.ndim != 2 or ours.shape[1] != reference.shape[1]:
        raise InputError(f"features of shape {ours.shape} and {reference.shape}; need (n, d) and (m, d)")
    if k < 1 or min(len(ours), len(reference)) <= k:
        raise InputError(
            f"k = {k} neighbours of {min(len(ours), len(reference))} pictures; k must be at least 1, and "
            "each set needs more pictures than that"
        )
    across = cdist(ours, reference)
    return PrecisionRecall(
        float((across <= _radii(reference, k)[None, :]).any(1).mean()),
        float((across <= _radii(ours, k)[:, None]).any(0).mean()),
    )


def _radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance to the k-th nearest other picture, (n,)."""
    return np.partition(cdist(features, features), k, axis=1)[:, k]  # the nearest is the picture itself
