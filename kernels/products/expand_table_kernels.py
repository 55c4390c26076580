"""Triton kernel of `expand_table`: packed codes to operands through a table of each row."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.tuned.configs import Config


@triton.jit
def _by_table(
    packed_ptr, table_ptr, out_ptr, N, row_bytes, K, K_PAD, out_stride, table_stride,
    BITS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    inside = rows < N
    there = inside[:, None] & (k < K)[None, :]
    first = k * BITS // 8
    at = rows.to(tl.int64)[:, None] * row_bytes + first[None, :]
    word = tl.load(packed_ptr + at, mask=there, other=0).to(tl.int32)
    if 8 % BITS != 0:  # a code may lie in two bytes
        more = there & (first + 1 < row_bytes)[None, :]
        word |= tl.load(packed_ptr + at + 1, mask=more, other=0).to(tl.int32) << 8
    code = (word >> (k * BITS % 8)[None, :]) & ((1 << BITS) - 1)
    value = tl.load(table_ptr + rows[:, None] * table_stride + code, mask=there, other=0)
    out = out_ptr + rows.to(tl.int64)[:, None] * out_stride + k[None, :]
    tl.store(out, value, mask=inside[:, None] & (k < K_PAD)[None, :])


def launch(packed: Tensor, table: Tensor, out: Tensor, bits: int, k: int, config: Config) -> None:
    """Run the kernel into `out`, bytes; see `kernels.products.expand_table`."""
    n, row_bytes = packed.shape
    block = min(config.block_k, triton.next_power_of_2(out.shape[1]))
    _by_table[(triton.cdiv(n, config.block_n), triton.cdiv(out.shape[1], block))](
        packed, table, out, n, row_bytes, k, out.shape[1], out.stride(0),
        0 if table.shape[0] == 1 else table.stride(0),
        BITS=bits, BN=config.block_n, BK=block, num_warps=config.warps,
    )  # fmt: skip
