"""Distances between two sets of pictures in a feature space, each beside its null.

Two fair samples of one model never have distance 0 in the Fréchet sense: with N pictures and d features of
equal variance v it is about d^2 v / (2 N). So a set distance is only ever given together with what it is
when nothing differs, at the same N. KID is unbiased: its null is centred on 0.

No Inception weights are used anywhere here, so nothing is ever called by the usual acronym: a figure's name
is ``FD(network, layer)`` or ``KID(network, layer)``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.linalg import eigh, eigvalsh

from lab.errors import InputError
from lab.metrics.efficientnet import NAME, EfficientNetLite0
from lab.metrics.pictures import check_pictures
from lab.progress import Progress, silent

Kind = Literal["FD", "KID"]


class SetDistance(NamedTuple):
    """A distance of two sets and what it is when nothing differs."""

    name: str
    value: float
    null: float
    null_high: float
    n: int


@torch.inference_mode()
def pooled_features(
    network: EfficientNetLite0,
    images: torch.Tensor,
    tap: str = "112",
    size: int = 128,
    batch: int = 64,
    progress: Progress = silent,
) -> np.ndarray:
    """Return one feature vector per picture, maps averaged over places.

    Parameters
    ----------
    images : Tensor of shape (n, 3, H, W) or (n, 1, H, W)
        In 0..1.
    tap : str
        Of `lab.metrics.efficientnet.TAPS`. "112" separates small faults best at a few hundred pictures.

    Returns
    -------
    float64 array of shape (n, d)

    Raises
    ------
    InputError
        Pictures that are not in 0..1.
    """
    device, rows = next(network.parameters()).device, []
    for start in range(0, len(images), batch):
        some = check_pictures(images[start : start + batch]).to(device)
        found = network.features(some, size, [tap])[tap].float()
        rows.append((found.mean((2, 3)) if found.ndim == 4 else found).cpu().double().numpy())
        progress(min(start + batch, len(images)), len(images), "features")
    return np.concatenate(rows)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features, (n, d) and (m, d); biased upwards.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)``, the symmetric form, stable when S is singular.
    """
    first, second = _pair(first, second)
    s1, s2 = np.cov(first, rowvar=False, ddof=1), np.cov(second, rowvar=False, ddof=1)
    s1, s2 = np.atleast_2d(s1), np.atleast_2d(s2)
    values, vectors = eigh(s1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(eigvalsh(root @ s2 @ root), 0, None)).sum()
    gap = first.mean(0) - second.mean(0)
    return float(max(gap @ gap + np.trace(s1) + np.trace(s2) - 2 * cross, 0.0))


def kid(first: np.ndarray, second: np.ndarray) -> float:
    """Kernel distance with the cubic kernel (x.y/d + 1)^3: squared MMD of all pairs, unbiased."""
    first, second = _pair(first, second)
    kernel = _cubic(np.concatenate([first, second]))
    return _mmd(kernel, np.arange(len(first)), np.arange(len(first), len(kernel)))


def set_distance(
    ours: np.ndarray,
    reference: np.ndarray,
    kind: Kind = "KID",
    other_seeds: np.ndarray | None = None,
    layer: str = "112",
    network: str = NAME,
    n_null: int = 20,
    seed: int = 0,
) -> SetDistance:
    """Return a distance together with its null at the same number of pictures.

    Parameters
    ----------
    ours, reference : array of shape (n, d)
        Features of both sets, equally many.
    other_seeds : array of shape (n, d), optional
        Features of the reference model with other noise seeds: the honest null. Without it the null is the
        mean over `n_null` random re-dealings of the pooled pictures into two sets.
    layer, network : str
        For the figure's name.

    Returns
    -------
    SetDistance
        ``null_high`` is the largest value of the null seen (equal to ``null`` when `other_seeds` is given).
    """
    if kind not in ("FD", "KID"):
        raise InputError(f"kind={kind!r}; allowed are 'FD' and 'KID'")
    ours, reference = _pair(ours, reference)
    if len(ours) != len(reference):
        raise InputError(
            f"{len(ours)} pictures against {len(reference)}; set distances need equally many on both sides"
        )
    n, name = len(ours), f"{kind}({network}, {layer})"
    measure = frechet_distance if kind == "FD" else kid
    value = measure(ours, reference)
    if other_seeds is not None:
        if len(other_seeds) != n:
            raise InputError(
                f"{len(other_seeds)} pictures in the null set but {n} in the others; need equally many"
            )
        null = measure(reference, other_seeds)
        return SetDistance(name, value, null, null, n)
    generator, pool = np.random.default_rng(seed), np.concatenate([ours, reference])
    deals = [generator.permutation(2 * n) for _ in range(n_null)]
    if kind == "FD":
        nulls = [frechet_distance(pool[d[:n]], pool[d[n:]]) for d in deals]
    else:
        kernel = _cubic(pool)
        nulls = [_mmd(kernel, d[:n], d[n:]) for d in deals]
    return SetDistance(name, value, float(np.mean(nulls)), float(np.max(nulls)), n)


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if (
        first.ndim != 2
        or second.ndim != 2
        or first.shape[1] != second.shape[1]
        or min(len(first), len(second)) < 2
    ):
        raise InputError(
            f"features of shape {first.shape} and {second.shape}; need (n, d) and (m, d), at least 2 each"
        )
    return first, second


def _cubic(features: np.ndarray) -> np.ndarray:
    return (features @ features.T / features.shape[1] + 1) ** 3


def _mmd(kernel: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    def within(rows: np.ndarray) -> float:
        block = kernel[np.ix_(rows, rows)]
        return float((block.sum() - np.trace(block)) / (len(rows) * (len(rows) - 1)))

    return within(first) + within(second) - 2 * float(kernel[np.ix_(first, second)].mean())
