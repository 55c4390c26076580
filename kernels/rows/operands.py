"""Operands of 8-bit products: their padding, and a low-rank branch as columns of e4m3.

A 16-bit number is the sum of two e4m3 numbers (4 + 4 significant bits), so ``low up^T`` is
``[h h r r] [h r h r]^T`` of columns appended to both operands: one more tile of depth for rank 32, and no
step of its own in the product's epilogue.
"""

from __future__ import annotations

import torch
from torch import Tensor

E4M3_MAX = 448.0
ALIGNMENT = 16
"""Columns of an operand are padded with zeros to a multiple of this, for the copy engine."""
LEAST_RANK = 16


def padded_columns(k: int) -> int:
    """Columns of an operand for K columns of data."""
    return -(-k // ALIGNMENT) * ALIGNMENT


def padded_rank(rank: int) -> int:
    """Rank that kernels work with: a power of two from 16; what is added is zeros."""
    return max(LEAST_RANK, 1 << max(rank - 1, 0).bit_length())


def two_floats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Write float32 numbers as the sum of two e4m3 numbers, 8 significant bits in all."""
    high = x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return high, (x - high.float()).to(torch.float8_e4m3fn)


def branch_columns(down: Tensor, up: Tensor, column_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Prepare a low-rank branch that travels inside e4m3 operands.

    Parameters
    ----------
    down : tensor of shape (R, K)
    up : tensor of shape (N, R)
    column_scale : float32 tensor of shape (N,)
        Of the product that the branch joins.

    Returns
    -------
    down : tensor of shape (R', K)
        Rows times powers of two that fill e4m3's range on the other side, R padded to `padded_rank`.
    columns : float8_e4m3fn tensor of shape (N, 4 R')
        To append to the weight's operand.
    """
    rank, r = padded_rank(down.shape[0]), down.shape[0]
    balance = balance_of(up, column_scale)
    balanced = (down.float() * balance[:, None]).to(down.dtype)
    balanced = torch.nn.functional.pad(balanced, (0, 0, 0, rank - r))
    up, balance = (torch.nn.functional.pad(t, (0, rank - r), value=v) for t, v in ((up, 0.0), (balance, 1.0)))
    return balanced.contiguous(), columns_of(up, column_scale, balance)


def balance_of(up: Tensor, column_scale: Tensor) -> Tensor:
    """Powers of two (R,) that down-projected rows are multiplied by, and up-projections divided.

    The largest number of each column of `up`, in units of its output channel, comes to lie in [128, 256).
    """
    largest = (up.float() / column_scale.float()[:, None]).abs().amax(0)
    _, exponent = torch.frexp(torch.where(largest > 0, largest, torch.ones_like(largest)))
    return torch.ldexp(torch.ones_like(largest), exponent.to(torch.int32) - 8)


def columns_of(up: Tensor, column_scale: Tensor, balance: Tensor) -> Tensor:
    """Columns (N, 4 R) of e4m3 that a weight's operand gets for its branch; `up` (N, R), `balance` (R,)."""
    high, rest = two_floats(up.float() / column_scale.float()[:, None] / balance)
    columns = torch.cat([high.view(torch.uint8), rest.view(torch.uint8)] * 2, 1)
    return columns.view(torch.float8_e4m3fn)
