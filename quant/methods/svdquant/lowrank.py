"""The 16-bit branch: top singular vectors, rounded to what is stored before the residual is taken."""

from __future__ import annotations

import torch
from torch import Tensor

SPARE, COLD, WARM = 8, 4, 2
"""Directions beyond the rank; rounds of subspace iteration from nothing and from a neighbour's subspace."""


def top_singular(
    weight: Tensor, rank: int, how: str, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Best rank-r factors of a matrix (Eckart-Young), the singular values shared between both.

    Parameters
    ----------
    weight : tensor of shape (N, K)
    rank : int
    how : {"randomized", "exact"}
        Randomized: subspace iteration (Halko et al. 2011) with 8 spare directions; exact where the matrix is
        hardly larger than the subspace.
    start : tensor of shape (K, rank + 8), optional
        What a call for a similar matrix returned as `basis`: half the rounds are enough then.

    Returns
    -------
    up : tensor of shape (N, rank)
    down : tensor of shape (rank, K)
    basis : tensor of shape (K, rank + 8) or None
        Right singular vectors, orthonormal; None from an exact factorization.
    """
    wide = weight.float()
    if how == "exact" or min(wide.shape) <= 2 * (rank + SPARE):
        u, s, vh = torch.linalg.svd(wide, full_matrices=False)
        root = s[:rank].clamp(min=0).sqrt()
        return u[:, :rank] * root, (vh[:rank].T * root).T, None
    basis = _subspace(wide, rank + SPARE, start)
    image = wide @ basis
    # Rayleigh-Ritz: the products' own directions, largest first
    values, turn = torch.linalg.eigh((image.T @ image).double())
    turn = turn.flip(1).float()
    basis = basis @ turn
    root = values.flip(0)[:rank].clamp(min=1e-30).sqrt().sqrt().float()
    return (image @ turn[:, :rank]) / root, basis[:, :rank].T * root[:, None], basis


def _subspace(weight: Tensor, size: int, start: Tensor | None) -> Tensor:
    """Orthonormal basis (K, size) near the top right singular vectors."""
    if start is None:
        # from the CPU's generator: a draw depends on the seed and not on the device
        noise = torch.randn(weight.shape[0], size).to(weight.device)
        basis = orthonormal(weight.T @ noise)
    else:
        basis = orthonormal(start)
    for _ in range(COLD if start is None else WARM):
        basis = orthonormal(weight.T @ (weight @ basis))
    return basis


def orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal basis of a tall matrix's columns, by two rounds of Cholesky-QR.

    A Householder QR of a tall matrix would be the slowest step on a GPU. Columns scaled to length 1 and a
    second round make this one as accurate; where columns depend on each other QR takes over.
    """
    scaled = columns / columns.norm(dim=0).clamp(min=1e-30)
    for _ in range(2):
        factor, failed = torch.linalg.cholesky_ex((scaled.T @ scaled).double())
        if int(failed):
            return torch.linalg.qr(columns).Q
        scaled = torch.linalg.solve_triangular(factor.float(), scaled.T, upper=False).T
    return scaled


def stored_branch(
    smoothed: Tensor, factor: Tensor | None, rank: int, how: str, dtype: torch.dtype,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Branch of a smoothed weight as it will be stored, and what it really takes out of that weight.

    The down factor is stored divided by the smoothing factors, so the branch reads the layer's raw input.

    Returns
    -------
    down : tensor of shape (rank, K), `dtype`
    up : tensor of shape (N, rank), `dtype`
    low : tensor of shape (N, K), float32
        ``up down diag(factor)`` of the *stored* factors: the residual is ``smoothed - low``.
    basis : tensor of shape (K, rank + 8) or None
        A start for the next similar matrix.
    """
    up, down, basis = top_singular(smoothed, rank, how, start)
    if factor is not None:
        down = down / factor.float()
    down, up = down.to(dtype), up.to(dtype)
    return down, up, branch_weight(down, up, factor), basis


def branch_weight(down: Tensor, up: Tensor, factor: Tensor | None) -> Tensor:
    """Branch as part of the smoothed weight, (N, K) float32."""
    wide = down.float() if factor is None else down.float() * factor.float()
    return up.float() @ wide
