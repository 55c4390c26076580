"""Triton kernel of `expand`: packed 4-bit codes and fine group scales to an 8-bit operand."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.tuned.configs import Config
from kernels.tuned.dots import to_e4m3


@triton.jit
def _expand(
    packed_ptr, fine_ptr, tail_ptr, out_ptr, N, row_bytes, groups, K, K_PAD, out_stride,
    GROUP: tl.constexpr, SIGNED: tl.constexpr, POW2: tl.constexpr, TAIL: tl.constexpr,
    BN: tl.constexpr, BYTES: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = rows < N
    out_rows = out_ptr + rows.to(tl.int64)[:, None] * out_stride
    chunk = tl.program_id(1)
    if TAIL > 0 and chunk == tl.num_programs(1) - 1:
        extra = tl.arange(0, TAIL)
        tail = tl.load(tail_ptr + rows[:, None] * TAIL + extra[None, :], mask=inside[:, None])
        tl.store(out_rows + K_PAD + extra[None, :], tail, mask=inside[:, None])
    else:
        HALF: tl.constexpr = GROUP // 2
        at = chunk * BYTES + tl.arange(0, BYTES)
        mask = inside[:, None] & (at < row_bytes)[None, :]
        byte = tl.load(packed_ptr + rows.to(tl.int64)[:, None] * row_bytes + at[None, :], mask=mask, other=0)
        group = chunk * (BYTES // HALF) + tl.arange(0, BYTES // HALF)
        fine_mask = inside[:, None] & (group < groups)[None, :]
        fine = tl.load(fine_ptr + rows[:, None] * groups + group[None, :], mask=fine_mask, other=0)
        nibbles = tl.reshape(byte, (BN, BYTES // HALF, HALF)).to(tl.int32)
        low = nibbles & 15
        high = nibbles >> 4
        if SIGNED:
            low = (low ^ 8) - 8
            high = (high ^ 8) - 8
        if POW2:
            scale = ((fine.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)[:, :, None]
            left = to_e4m3(low.to(tl.float32) * scale, WIDE)
            right = to_e4m3(high.to(tl.float32) * scale, WIDE)
        else:
            scale = fine.to(tl.int32)[:, :, None]
            left = (low * scale).to(tl.int8)
            right = (high * scale).to(tl.int8)
        code = tl.interleave(tl.reshape(left, (BN, BYTES)), tl.reshape(right, (BN, BYTES)))
        k = chunk * (2 * BYTES) + tl.arange(0, 2 * BYTES)
        tl.store(out_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])


def launch(
    packed: Tensor, fine: Tensor, out: Tensor, tail: Tensor | None, k: int, padded: int, group: int, signed: bool,
    config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `out`; see `kernels.products.expand`. block_k is codes, block_n rows of a program."""
    n, row_bytes = packed.shape
    bytes_ = min(max(config.block_k // 2, group // 2), triton.next_power_of_2(max(row_bytes, group // 2)))
    chunks = triton.cdiv(row_bytes, bytes_) + (tail is not None)
    _expand[(triton.cdiv(n, config.block_n), chunks)](
        packed, fine, packed if tail is None else tail, out, n, row_bytes, fine.shape[1], k, padded, out.stride(0),
        GROUP=group, SIGNED=signed, POW2=fine.dtype.is_signed, TAIL=0 if tail is None else tail.shape[1],
        BN=config.block_n, BYTES=bytes_, WIDE=paths.interpreted(), num_warps=config.warps,
    )  # fmt: skip
