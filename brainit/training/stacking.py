"""Combine a network with ridge by weights found on out-of-fold predictions (stacking, Breiman 1996)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import nnls

Weights = dict[str, tuple[float, float]]  # part -> (weight of ridge, weight of the network)


def fixed_weights(groups: Mapping[str, torch.Tensor], *, residual: bool) -> Weights:
    """Weights without calibration: the network alone, or ridge plus the network's residual."""
    return dict.fromkeys(groups, (1.0 if residual else 0.0, 1.0))


def fit_weights(
    groups: Mapping[str, torch.Tensor],
    target: torch.Tensor,
    network: torch.Tensor,
    ridge: torch.Tensor | None,
    *,
    residual: bool,
    how: str,
) -> Weights:
    """Choose weights of least squared error on trials that neither predictor was trained on.

    Parameters
    ----------
    groups : mapping of str to int tensor
        Flat indices of each part (``TargetScaler.groups``).
    target, network : float tensors of shape (n, n_values)
        Standardised; ``network`` is the residual over ridge if ``residual``.
    ridge : float tensor of shape (n, n_values), optional
        Needed for ``how="stack"`` and for ``residual``.
    how : {"none", "shrink", "stack"}
        "shrink": one factor in 0..1 on the network. "stack": non-negative weights of both.

    Returns
    -------
    dict of str to (float, float)
        Weight of ridge and of the network in each part.
    """
    weights = fixed_weights(groups, residual=residual)
    if how == "none":
        return weights
    for name, index in groups.items():
        y, f = target[:, index].double(), network[:, index].double()
        r = None if ridge is None else ridge[:, index].double()
        if how == "shrink" or r is None:
            left = y - r if residual and r is not None else y
            power = float((f * f).sum())
            factor = float((left * f).sum()) / power if power > 0 else 0.0
            weights[name] = (weights[name][0], float(np.clip(factor, 0, 1)))
            continue
        # residual networks may only be added; otherwise both compete
        cross = np.array([[float((a * b).sum()) for b in (r, f)] for a in (r, f)])
        right = np.array([float((a * y).sum()) for a in (r, f)])
        values, vectors = np.linalg.eigh(cross)
        root = np.sqrt(np.clip(values, 0, None))
        inverse = np.where(root > 1e-9 * max(root.max(), 1e-30), 1 / np.maximum(root, 1e-30), 0)
        solution, _ = nnls((vectors * root).T, (vectors * inverse).T @ right)
        weights[name] = (float(solution[0]), float(solution[1]))
    return weights


def combine(
    groups: Mapping[str, torch.Tensor], weights: Weights, network: torch.Tensor, ridge: torch.Tensor | None
) -> torch.Tensor:
    """Apply weights to standardised flat predictions (n, n_values)."""
    out = torch.empty_like(network)
    for name, index in groups.items():
        own, other = weights[name][1], weights[name][0]
        out[:, index] = own * network[:, index]
        if other and ridge is not None:
            out[:, index] += other * ridge[:, index]
    return out
