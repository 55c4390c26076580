"""Triton kernel of `expand_half`: packed 4-bit codes and scales to the weight in 16 or 32 bits."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.tuned.configs import Config


@triton.jit
def _number(nibble):
    # a code of two's complement as float32 without a conversion: 2^23 + (code + 8), less 2^23 + 8
    return ((nibble ^ 8) | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0


@triton.jit
def _expand_half(
    packed_ptr, scale_ptr, column_ptr, out_ptr, N, row_bytes, groups, K,
    GROUP: tl.constexpr, POW2: tl.constexpr, COARSE: tl.constexpr, BN: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = GROUP // 2
    PIECES: tl.constexpr = BYTES // HALF
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = (rows < N)[:, None]
    group = tl.program_id(1) * PIECES + tl.arange(0, PIECES)
    scale = tl.load(
        scale_ptr + rows[:, None] * groups + group[None, :], mask=inside & (group < groups)[None, :], other=0
    )
    if POW2:
        real = ((scale.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    else:
        real = scale.to(tl.float32)
    if COARSE:
        real *= tl.load(column_ptr + rows, mask=rows < N, other=0.0)[:, None]
    at = tl.program_id(1) * BYTES + tl.arange(0, BYTES)
    byte = tl.load(
        packed_ptr + rows.to(tl.int64)[:, None] * row_bytes + at[None, :],
        mask=inside & (at < row_bytes)[None, :], other=0,
    )  # fmt: skip
    nibbles = tl.reshape(byte, (BN, PIECES, HALF)).to(tl.int32)
    left = (_number(nibbles & 15) * real[:, :, None]).to(out_ptr.dtype.element_ty)
    right = (_number(nibbles >> 4) * real[:, :, None]).to(out_ptr.dtype.element_ty)
    value = tl.interleave(tl.reshape(left, (BN, BYTES)), tl.reshape(right, (BN, BYTES)))
    k = tl.program_id(1) * (2 * BYTES) + tl.arange(0, 2 * BYTES)
    tl.store(out_ptr + rows.to(tl.int64)[:, None] * K + k[None, :], value, mask=inside & (k < K)[None, :])


def launch(
    packed: Tensor, scale: Tensor, column: Tensor | None, out: Tensor, group: int, config: Config
) -> None:
    """Run the kernel into `out`; `block_k` is codes, `block_n` rows of a program."""
    n, row_bytes = packed.shape
    half = group // 2
    bytes_ = min(max(config.block_k // 2, half), triton.next_power_of_2(max(row_bytes, half)))
    _expand_half[(triton.cdiv(n, config.block_n), triton.cdiv(row_bytes, bytes_))](
        packed, scale, scale if column is None else column, out, n, row_bytes, scale.shape[1], out.shape[1],
        GROUP=group, POW2=scale.dtype.is_signed and not scale.dtype.is_floating_point,
        COARSE=column is not None, BN=config.block_n, BYTES=bytes_, num_warps=config.warps,
    )  # fmt: skip
