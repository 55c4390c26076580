"""Triton kernels of `expand` and `expand_half`: packed 4-bit codes and scales to operands or the weight."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.tuned.configs import Config
from kernels.tuned.dots import to_e4m3, two_e4m3

LEAST_BY_TABLE = -6
"""Below this exponent codes times 2^e are subnormal, and the table of their bytes does not hold."""


@triton.jit
def _positive(selector):
    # bytes of the magnitudes 0..7 in e4m3, less 0x30 where they are not 0
    return tl.inline_asm_elementwise(
        "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [0x14100800, 0x1E1C1A18, selector], tl.int32, True, 1
    )


@triton.jit
def _negative(selector):
    # the same of 8 - 0, 8 - 1, ... 8 - 7: what three bits of a negative code of two's complement stand for
    return tl.inline_asm_elementwise(
        "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [0x1A1C1E20, 0x08101418, selector], tl.int32, True, 1
    )


@triton.jit
def _signs(selector):
    # 0x7F in the bytes of negative codes, else 0: the fourth bit of a selector spreads the sign of a byte
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t; mov.b32 t, 0x80808080; prmt.b32 $0, t, t, $1; xor.b32 $0, $0, t; }",
        "=r,r", [selector], tl.int32, True, 1,
    )  # fmt: skip


@triton.jit
def _four(selector, raised):
    """Four e4m3 numbers code 2^e from four packed codes; `raised` is 8 (e + 6), not negative."""
    three = selector & 0x7777
    negative = _signs(selector)
    positive = _positive(three)
    size = positive ^ ((positive ^ _negative(three)) & negative)
    there = ((size >> 3) | (size >> 4) | (size >> 5)) & 0x01010101
    return (size + there * raised) | ((negative & 0x40404040) << 1)


@triton.jit
def _expand(
    packed_ptr, fine_ptr, tail_ptr, column_ptr, balance_ptr, out_ptr, N, row_bytes, groups, K, K_PAD,
    out_stride,
    GROUP: tl.constexpr, SIGNED: tl.constexpr, POW2: tl.constexpr, TAIL: tl.constexpr, RANK: tl.constexpr,
    BN: tl.constexpr, BYTES: tl.constexpr, WORDS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = rows < N
    out_rows = out_ptr + rows.to(tl.int64)[:, None] * out_stride
    chunk = tl.program_id(1)
    HALF: tl.constexpr = GROUP // 2
    group = chunk * (BYTES // HALF) + tl.arange(0, BYTES // HALF)
    fine_mask = inside[:, None] & (group < groups)[None, :]
    if TAIL > 0 and chunk == tl.num_programs(1) - 1:
        if RANK > 0:  # the branch's columns are made here: see `kernels.rows.operands.columns_of`
            _branch(tail_ptr, column_ptr, balance_ptr, out_rows + K_PAD, rows, inside, BN, RANK)
        else:
            extra = tl.arange(0, TAIL)
            tail = tl.load(tail_ptr + rows[:, None] * TAIL + extra[None, :], mask=inside[:, None])
            tl.store(out_rows + K_PAD + extra[None, :], tail, mask=inside[:, None])
    else:
        fine = tl.load(fine_ptr + rows[:, None] * groups + group[None, :], mask=fine_mask, other=0)
        if WORDS:
            _by_words(packed_ptr, out_ptr, fine, rows, inside, chunk, row_bytes, out_stride, GROUP, BN, BYTES)
        else:
            at = chunk * BYTES + tl.arange(0, BYTES)
            mask = inside[:, None] & (at < row_bytes)[None, :]
            byte = tl.load(
                packed_ptr + rows.to(tl.int64)[:, None] * row_bytes + at[None, :], mask=mask, other=0
            )
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
                times = fine.to(tl.int32)[:, :, None]
                left = (low * times).to(tl.int8)
                right = (high * times).to(tl.int8)
            code = tl.interleave(tl.reshape(left, (BN, BYTES)), tl.reshape(right, (BN, BYTES)))
            k = chunk * (2 * BYTES) + tl.arange(0, 2 * BYTES)
            tl.store(out_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])


@triton.jit
def _branch(
    up_ptr, column_ptr, balance_ptr, out_rows, rows, inside, BN: tl.constexpr, RANK: tl.constexpr
):  # fmt: skip
    rank = tl.arange(0, RANK)
    up = tl.load(up_ptr + rows[:, None] * RANK + rank[None, :], mask=inside[:, None], other=0.0)
    column = tl.load(column_ptr + rows, mask=inside, other=1.0)
    tile = tl.zeros((BN, RANK), tl.float32)
    scaled = tl.div_rn(up.to(tl.float32), column[:, None] + tile)
    high, rest = two_e4m3(tl.div_rn(scaled, tl.load(balance_ptr + rank)[None, :] + tile))
    at = out_rows + rank[None, :]
    tl.store(at, high, mask=inside[:, None])
    tl.store(at + RANK, rest, mask=inside[:, None])
    tl.store(at + 2 * RANK, high, mask=inside[:, None])
    tl.store(at + 3 * RANK, rest, mask=inside[:, None])


@triton.jit
def _by_words(
    packed_ptr, out_ptr, fine, rows, inside, chunk, row_bytes, out_stride,
    GROUP: tl.constexpr, BN: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """Eight codes at a time by table look-up in registers: a third of the instructions of floats."""
    WORD: tl.constexpr = BYTES // 4
    at = chunk * WORD + tl.arange(0, WORD)
    packed = packed_ptr.to(tl.pointer_type(tl.int32)) + rows.to(tl.int64)[:, None] * (row_bytes // 4)
    word = tl.load(packed + at[None, :], mask=inside[:, None] & (at < row_bytes // 4)[None, :], other=0)
    raised = ((fine.to(tl.int32) + 6) * 8)[:, :, None] + tl.zeros(
        (BN, BYTES // (GROUP // 2), GROUP // 8), tl.int32
    )
    raised = tl.reshape(raised, (BN, WORD))
    code = tl.interleave(_four(word & 0xFFFF, raised), _four((word >> 16) & 0xFFFF, raised))
    out = out_ptr.to(tl.pointer_type(tl.int32)) + rows.to(tl.int64)[:, None] * (out_stride // 4)
    column = chunk * (2 * WORD) + tl.arange(0, 2 * WORD)
    tl.store(out + column[None, :], code, mask=inside[:, None] & (column < row_bytes // 2)[None, :])


def launch(
    packed: Tensor, fine: Tensor, out: Tensor, tail: Tensor | None, up: Tensor | None,
    column: Tensor | None, balance: Tensor | None, k: int, padded: int, group: int, signed: bool, least: int,
    config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `out`; `block_k` is codes, `block_n` rows of a program."""
    n, row_bytes = packed.shape
    bytes_ = min(max(config.block_k // 2, group // 2), triton.next_power_of_2(max(row_bytes, group // 2)))
    appended = up if tail is None else tail
    chunks = triton.cdiv(row_bytes, bytes_) + (appended is not None)
    words = (
        signed
        and fine.dtype.is_signed
        and least >= LEAST_BY_TABLE
        and k % 16 == 0
        and group % 8 == 0
        and packed.data_ptr() % 4 == 0
        and not paths.INTERPRETED
    )
    _expand[(triton.cdiv(n, config.block_n), chunks)](
        packed, fine, packed if appended is None else appended, fine if column is None else column,
        fine if balance is None else balance, out, n, row_bytes, fine.shape[1], k, padded, out.stride(0),
        GROUP=group, SIGNED=signed, POW2=fine.dtype.is_signed, TAIL=out.shape[1] - padded,
        RANK=0 if up is None else up.shape[1],
        BN=config.block_n, BYTES=bytes_, WORDS=words, WIDE=paths.INTERPRETED, num_warps=config.warps,
    )  # fmt: skip


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


def launch_half(
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
