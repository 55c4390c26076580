"""Orders in which tensor cores take operands, as the file layout of SVDQuant's engine (Nunchaku) fixes them.

A layout is said by splitting each axis into named factors and listing the order in which they are stored.

=================  ====================================================================================
codes              tiles of 128 x 64: rows (8 packs, 2 halves, 8 lanes), columns (2 halves, 4 lanes,
                   8 registers), stored as (pack, row lane, column lane, row half, column half, register):
                   one 16-byte load a lane feeds two m16n8k64 products
scales, vectors    runs of 128: lane 0 holds 0, 1, 8, 9, lane 1 2, 3, 10, 11, lane 4 16, 17, 24, 25
low-rank factors   tiles of 16 x 16 (those of the down-projection transposed) in the order of an m16n8k16
                   fragment, as the engine's authors gave it in their issue 67
=================  ====================================================================================

*Assumed*, since no document says it: tiles follow each other with output channels outermost; smoothing
factors are ordered like the bias. Every function is a permutation, undone by its ``un...`` partner bit for
bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS, COLUMNS, GROUP, RANKS = 128, 128, 64, 16
"""Multiples to which output channels, input channels (two tiles) and ranks are padded; size of a group."""

_ROW_FACTORS, _COLUMN_FACTORS = (8, 2, 8), (2, 4, 8)
_WEIGHT_ORDER = (0, 4, 1, 3, 6, 2, 5, 7)
_RUN = (8, 2, 4, 2)
_SCALE_ORDER = (0, 5, 1, 3, 2, 4)


def pack_codes(codes: Tensor) -> Tensor:
    """Order 4-bit codes for 16-byte loads, 8 of them in 32 bits, lowest input channel in the lowest bits.

    Parameters
    ----------
    codes : int8 tensor of shape (N, K)
        N a multiple of 128, K of 64; two's complement or unsigned nibbles.

    Returns
    -------
    int8 tensor of shape (N, K / 2)
    """
    n, k = codes.shape
    view = codes.reshape(n // ROWS, *_ROW_FACTORS, k // GROUP, *_COLUMN_FACTORS)
    ordered = view.permute(_WEIGHT_ORDER).contiguous().view(torch.uint8) & 15
    pairs = ordered.reshape(-1, 2)  # a little-endian word holds its lowest nibble first
    return (pairs[:, 0] | (pairs[:, 1] << 4)).view(torch.int8).reshape(n, k // 2)


def unpack_codes(packed: Tensor, signed: bool = True) -> Tensor:
    """Undo `pack_codes`: int8 (N, K), -8..7 or 0..15."""
    n, k = packed.shape[0], packed.shape[1] * 2
    raw = packed.contiguous().view(torch.uint8).reshape(-1, 1)
    nibbles = torch.cat([raw & 15, raw >> 4], 1).view(torch.int8)
    if signed:
        nibbles = torch.where(nibbles > 7, nibbles - 16, nibbles)
    sizes = (n // ROWS, *_ROW_FACTORS, k // GROUP, *_COLUMN_FACTORS)
    stored = nibbles.reshape([sizes[axis] for axis in _WEIGHT_ORDER])
    return stored.permute(_inverse(_WEIGHT_ORDER)).reshape(n, k)


def pack_scales(scales: Tensor) -> Tensor:
    """Order group scales (N, G) for the engine: (G, N) with runs of 128 permuted, tile by tile."""
    n, groups = scales.shape
    view = scales.reshape(n // ROWS, *_RUN, groups)
    return view.permute(_SCALE_ORDER).reshape(groups, n).contiguous()


def unpack_scales(packed: Tensor) -> Tensor:
    """Undo `pack_scales`."""
    groups, n = packed.shape
    sizes = (n // ROWS, *_RUN, groups)
    stored = packed.reshape([sizes[axis] for axis in _SCALE_ORDER])
    return stored.permute(_inverse(_SCALE_ORDER)).reshape(n, groups)


def pack_vector(values: Tensor) -> Tensor:
    """Order a bias (N,) or smoothing factors (K,): the permutation of one row of scales."""
    return pack_scales(values[:, None]).reshape(-1)


def unpack_vector(packed: Tensor) -> Tensor:
    """Undo `pack_vector`."""
    return unpack_scales(packed[None]).reshape(-1)


def pack_branch(factor: Tensor, down: bool) -> Tensor:
    """Order a low-rank factor in 16 x 16 tiles; those of the down-projection are transposed.

    Parameters
    ----------
    factor : 16-bit tensor of shape (K, R) for down, (N, R) for up
        Both sizes multiples of 16.
    down : bool
    """
    n, rank = factor.shape
    tiles = factor.reshape(n // 16, 16, rank // 16, 16).transpose(1, 2)
    tiles = tiles.transpose(-1, -2) if down else tiles
    # rows (2 halves, 8 lanes), columns (2 halves, 4 lanes, 2 neighbours): a lane has halves and pairs
    view = tiles.reshape(-1, 2, 8, 2, 4, 2)
    return view.permute(0, 2, 4, 1, 3, 5).reshape(n, rank).contiguous()


def unpack_branch(packed: Tensor, down: bool) -> Tensor:
    """Undo `pack_branch`."""
    n, rank = packed.shape
    view = packed.reshape(-1, 8, 4, 2, 2, 2).permute(0, 3, 1, 4, 2, 5)
    tiles = view.reshape(n // 16, rank // 16, 16, 16)
    tiles = tiles.transpose(-1, -2) if down else tiles
    return tiles.transpose(1, 2).reshape(n, rank).contiguous()


def _inverse(order: tuple[int, ...]) -> list[int]:
    return [order.index(axis) for axis in range(len(order))]
