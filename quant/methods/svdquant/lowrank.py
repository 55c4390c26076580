"""The 16-bit branch: top singular vectors, rounded to what is stored before the residual is taken."""

from __future__ import annotations

import torch
from torch import Tensor


def top_singular(weight: Tensor, rank: int, how: str) -> tuple[Tensor, Tensor]:
    """Best rank-r factors of a matrix (Eckart-Young), the singular values shared between both.

    Parameters
    ----------
    weight : tensor of shape (N, K)
    rank : int
    how : {"randomized", "exact"}
        Randomized: subspace iteration (Halko et al. 2011) with 8 spare directions and 4 rounds; exact where
        the matrix is hardly larger than the subspace.

    Returns
    -------
    up : tensor of shape (N, rank)
    down : tensor of shape (rank, K)
    """
    wide = weight.float()
    if how == "exact" or min(wide.shape) <= 2 * (rank + 8):
        u, s, vh = torch.linalg.svd(wide, full_matrices=False)
        u, s, v = u[:, :rank], s[:rank], vh[:rank].T
    else:
        u, s, v = torch.svd_lowrank(wide, q=min(rank + 8, *wide.shape), niter=4)
        u, s, v = u[:, :rank], s[:rank], v[:, :rank]
    root = s.clamp(min=0).sqrt()
    return u * root, (v * root).T


def stored_branch(
    smoothed: Tensor, factor: Tensor | None, rank: int, how: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Branch of a smoothed weight as it will be stored, and what it really takes out of that weight.

    The down factor is stored divided by the smoothing factors, so the branch reads the layer's raw input.

    Returns
    -------
    down : tensor of shape (rank, K), `dtype`
    up : tensor of shape (N, rank), `dtype`
    low : tensor of shape (N, K), float32
        ``up down diag(factor)`` of the *stored* factors: the residual is ``smoothed - low``.
    """
    up, down = top_singular(smoothed, rank, how)
    if factor is not None:
        down = down / factor.float()
    down, up = down.to(dtype), up.to(dtype)
    return down, up, branch_weight(down, up, factor)


def branch_weight(down: Tensor, up: Tensor, factor: Tensor | None) -> Tensor:
    """Branch as part of the smoothed weight, (N, K) float32."""
    wide = down.float() if factor is None else down.float() * factor.float()
    return up.float() @ wide
