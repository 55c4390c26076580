"""Triton kernel of `expand_table`: packed codes to operands through a table of each row.

Up to 4 bits a table is 16 bytes in four registers: one byte permutation looks up four codes in half of it.
Wider codes gather from memory.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.tuned.configs import Config

IN_REGISTERS = 4
"""Bits of a code up to which the table fits registers."""
QUAD = 4


@triton.jit
def _spread_fields(word, BITS: tl.constexpr):
    """Four codes of `BITS` bits, the first lowest, to one a nibble."""
    if BITS == 4:
        return word & 0xFFFF
    else:
        MASK: tl.constexpr = (1 << BITS) - 1
        LIFT: tl.constexpr = 4 - BITS
        out = word & MASK
        out |= (word << LIFT) & (MASK << 4)
        out |= (word << (2 * LIFT)) & (MASK << 8)
        return out | ((word << (3 * LIFT)) & (MASK << 12))


@triton.jit
def _looked_up(nibbles, t0, t1, t2, t3, WIDE: tl.constexpr):
    """Bytes of four codes, the first lowest, from a table of 16 bytes."""
    if WIDE:
        out = tl.zeros_like(nibbles)
        for index in tl.static_range(4):
            code = (nibbles >> (4 * index)) & 15
            half = tl.where(code & 4 == 0, t0, t1)
            word = tl.where(code & 8 == 0, half, tl.where(code & 4 == 0, t2, t3))
            out |= ((word >> ((code & 3) * 8)) & 255) << (8 * index)
        return out
    else:
        # a selector with its highest bit copies the sign of a byte: of 0x80 it makes 0xFF, else it stays 0x80
        return tl.inline_asm_elementwise(
            """{ .reg .b32 s, u, v, m;
            and.b32 s, $1, 0x7777; prmt.b32 u, $2, $3, s; prmt.b32 v, $4, $5, s;
            and.b32 s, $1, 0x8888; mov.b32 m, 0x80808080; prmt.b32 m, m, m, s;
            and.b32 m, m, 0x7F7F7F7F; shl.b32 s, m, 1; or.b32 m, m, s;
            xor.b32 v, v, u; and.b32 v, v, m; xor.b32 $0, u, v; }""",
            "=r,r,r,r,r,r", [nibbles, t0, t1, t2, t3], tl.int32, True, 1,
        )  # fmt: skip


@triton.jit
def _by_registers(
    packed_ptr, table_ptr, out_ptr, N, row_bytes, QUADS, K, out_stride, table_stride,
    BITS: tl.constexpr, BN: tl.constexpr, BQ: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Four neighbouring codes a lane; `QUADS` of them a row of the operand."""
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    quad = tl.program_id(1) * BQ + tl.arange(0, BQ)
    inside = rows < N
    first = quad * BITS // 2
    at = rows.to(tl.int64)[:, None] * row_bytes + first[None, :]
    there = inside[:, None] & (quad * 4 < K)[None, :]
    if EVEN:
        halves = packed_ptr.to(tl.pointer_type(tl.int16))
        at = rows.to(tl.int64)[:, None] * (row_bytes // 2) + quad[None, :]
        word = tl.load(halves + at, mask=there, other=0).to(tl.int32)
    elif BITS == 4:
        low = tl.load(packed_ptr + at, mask=there & (first < row_bytes)[None, :], other=0).to(tl.int32)
        high = tl.load(packed_ptr + at + 1, mask=there & (first + 1 < row_bytes)[None, :], other=0)
        word = low | (high.to(tl.int32) << 8)
    elif BITS == 3:
        low = tl.load(packed_ptr + at, mask=there & (first < row_bytes)[None, :], other=0).to(tl.int32)
        high = tl.load(packed_ptr + at + 1, mask=there & (first + 1 < row_bytes)[None, :], other=0)
        word = (low | (high.to(tl.int32) << 8)) >> ((quad % 2) * 4)[None, :]
    else:
        word = tl.load(packed_ptr + at, mask=there, other=0).to(tl.int32)
        if BITS == 1:
            word = word >> ((quad % 2) * 4)[None, :]
    table = table_ptr + rows[:, None] * table_stride
    if BITS == 1:
        t0 = tl.load(table, mask=inside[:, None], other=0).to(tl.int32)
        t0 |= tl.load(table + 1, mask=inside[:, None], other=0).to(tl.int32) << 8
    else:
        table = table.to(tl.pointer_type(tl.int32))
        t0 = tl.load(table, mask=inside[:, None], other=0)
    t1, t2, t3 = t0, t0, t0
    if BITS > 2:
        t1 = tl.load(table + 1, mask=inside[:, None], other=0)
    if BITS > 3:
        t2 = tl.load(table + 2, mask=inside[:, None], other=0)
        t3 = tl.load(table + 3, mask=inside[:, None], other=0)
    nibbles = _spread_fields(word, BITS)
    value = _looked_up(nibbles, t0, t1, t2, t3, WIDE)
    # columns that are padding are zeros, whatever number code 0 stands for
    left = tl.minimum(tl.maximum(K - quad * 4, 0), 4)[None, :]
    value = tl.where(left == 4, value, value & ((1 << (left * 8)) - 1))
    out = out_ptr.to(tl.pointer_type(tl.int32)) + rows.to(tl.int64)[:, None] * (out_stride // 4)
    tl.store(out + quad[None, :], value, mask=inside[:, None] & (quad < QUADS)[None, :])


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
    if table.data_ptr() % 4:
        table = table.clone()  # it is read by words
    block = min(config.block_k, triton.next_power_of_2(out.shape[1]))
    grid = (triton.cdiv(n, config.block_n), triton.cdiv(out.shape[1], block))
    stride = 0 if table.shape[0] == 1 else table.stride(0)
    if bits > IN_REGISTERS:
        _by_table[grid](
            packed, table, out, n, row_bytes, k, out.shape[1], out.stride(0), stride, BITS=bits,
            BN=config.block_n, BK=block, num_warps=config.warps,
        )  # fmt: skip
        return
    _by_registers[grid](
        packed, table, out, n, row_bytes, out.shape[1] // QUAD, k, out.stride(0), stride, BITS=bits,
        BN=config.block_n, BQ=block // QUAD,
        EVEN=bits == IN_REGISTERS and row_bytes % 2 == 0 and packed.data_ptr() % 2 == 0,
        WIDE=paths.INTERPRETED, num_warps=config.warps,
    )  # fmt: skip
