"""Low-bit codes as bytes: one little-endian bit stream a row.

Code ``i`` of a row occupies bits ``[i*b, (i+1)*b)`` of that row's bytes, bit 0 being the lowest bit of
byte 0. So 4-bit codes lie two a byte with the even index in the low nibble, 2-bit codes four a byte, 6-bit
codes four in three bytes, and every row starts on a byte (a row of n codes takes ``ceil(n*b/8)`` bytes).
Signed codes are stored in two's complement of b bits. There is no interleaving for any kernel: repacking
happens when a kernel loads the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor


def packed_bytes(n: int, bits: int) -> int:
    """Bytes that a row of `n` codes of `bits` bits takes."""
    return (n * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integer codes along the last axis.

    Parameters
    ----------
    codes : int8 or uint8 tensor of shape (..., n)
        Each code must fit `bits` bits, signed (two's complement) or unsigned; higher bits are dropped.
    bits : int
        1 to 8.

    Returns
    -------
    uint8 tensor of shape (..., ceil(n * bits / 8))
    """
    _check_bits(bits)
    if codes.dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"codes must be int8 or uint8, got {codes.dtype}; clamp and cast them first")
    raw = codes.contiguous().view(torch.uint8)
    if bits == 8:
        return raw.clone()
    raw = raw & ((1 << bits) - 1)
    n = raw.shape[-1]
    if 8 % bits == 0:
        per_byte = 8 // bits
        fields = _pad_last(raw, per_byte).unflatten(-1, (-1, per_byte))
        return _or_shifted(fields, bits)
    # 3, 5, 6 and 7 bits do not divide a byte: eight codes fill exactly `bits` bytes of one 64-bit word
    words = _or_shifted(_pad_last(raw, 8).unflatten(-1, (-1, 8)), bits, torch.int64)
    packed = torch.stack([(words >> (8 * index)) & 255 for index in range(bits)], dim=-1).to(torch.uint8)
    return packed.flatten(-2)[..., : packed_bytes(n, bits)].contiguous()


def unpack(packed: Tensor, bits: int, n: int, signed: bool) -> Tensor:
    """Undo `pack`.

    Parameters
    ----------
    packed : uint8 tensor of shape (..., ceil(n * bits / 8))
    bits, n : int
        As given to `pack`; `n` is needed because the last byte may be partly empty.
    signed : bool
        Sign-extend to int8, else return uint8.

    Returns
    -------
    int8 or uint8 tensor of shape (..., n)
    """
    _check_bits(bits)
    if packed.dtype != torch.uint8:
        raise ValueError(f"packed codes must be uint8, got {packed.dtype}; use .view(torch.uint8)")
    if packed.shape[-1] != packed_bytes(n, bits):
        raise ValueError(
            f"{n} codes of {bits} bits take {packed_bytes(n, bits)} bytes a row, got {packed.shape[-1]}"
        )
    if bits == 8:
        raw = packed.clone()
    elif 8 % bits == 0:
        fields = packed.unsqueeze(-1) >> (_shifts(8 // bits, packed.device) * bits)
        raw = (fields & ((1 << bits) - 1)).flatten(-2)[..., :n]
    else:
        words = _or_shifted(_pad_last(packed, bits).unflatten(-1, (-1, bits)), 8, torch.int64)
        mask = (1 << bits) - 1
        fields = torch.stack([(words >> (bits * index)) & mask for index in range(8)], dim=-1)
        raw = fields.to(torch.uint8).flatten(-2)[..., :n]
    if not signed:
        return raw.contiguous()
    lift = 8 - bits  # arithmetic shift right of int8 copies the sign bit
    return (raw << lift).contiguous().view(torch.int8) >> lift


def _or_shifted(fields: Tensor, bits: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Combine (..., f) fields of `bits` bits into one word each; field 0 lowest."""
    out = fields[..., 0].to(dtype, copy=True)
    for index in range(1, fields.shape[-1]):
        out |= fields[..., index].to(dtype) << (index * bits)
    return out


def _shifts(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.uint8, device=device)


def _pad_last(x: Tensor, multiple: int) -> Tensor:
    missing = -x.shape[-1] % multiple
    return torch.nn.functional.pad(x, (0, missing)) if missing else x


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits must be 1..8, got {bits}")
