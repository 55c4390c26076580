"""Second way of `few_rows`: group scales meet the codes, so that a step is one product over several groups.

In the first way every group ends a sum, and the next one waits for its scale: a byte a row that the copy
pipeline does not fetch ahead. Here scales are fetched a step ahead and multiplied into the codes, which costs
four instructions for eight codes and makes a step as deep as memory likes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.tuned.dots import half_dot

KINDS = {torch.int8: 0, torch.uint8: 1, torch.bfloat16: 2, torch.float16: 3, torch.float32: 4}
"""Kinds of scales: exponents of two, integers, real ones."""


@triton.jit
def pairs(word, BF16: tl.constexpr):
    """Two 16-bit numbers of one 32-bit word, the even column in the low half."""
    even = (word & 0xFFFF).to(tl.int16)
    odd = (word >> 16).to(tl.int16)
    if BF16:
        return even.to(tl.bfloat16, bitcast=True), odd.to(tl.bfloat16, bitcast=True)
    else:
        return even.to(tl.float16, bitcast=True), odd.to(tl.float16, bitcast=True)


@triton.jit
def finished(
    total, part_ptr, count_ptr, bias_ptr, out_ptr, columns, rows, mask, M, N,
    HAS_BIAS: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Write a tile; of programs that share one, the last to arrive adds up what all found, in order."""
    at = rows.to(tl.int64)[None, :] * N + columns[:, None]
    if SPLIT > 1:
        tl.store(part_ptr + tl.program_id(2).to(tl.int64) * M * N + at, total, mask=mask)
        tl.debug_barrier()  # all threads have stored before one of them counts
        tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        arrived = tl.atomic_add(count_ptr + tile, 1, sem="acq_rel")
        if arrived == SPLIT - 1:
            total = tl.zeros_like(total)
            for split in tl.static_range(SPLIT):
                # past the nearest cache, which does not see what other programs wrote
                total += tl.load(
                    part_ptr + tl.cast(split, tl.int64) * M * N + at,
                    mask=mask,
                    other=0.0,
                    cache_modifier=".cg",
                )
            _written(total, bias_ptr, out_ptr, at, columns, mask, N, HAS_BIAS)
            tl.store(count_ptr + tile, 0)
    else:
        _written(total, bias_ptr, out_ptr, at, columns, mask, N, HAS_BIAS)


@triton.jit
def _written(total, bias_ptr, out_ptr, at, columns, mask, N, HAS_BIAS: tl.constexpr):
    if HAS_BIAS:
        total += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[:, None]
    tl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def halves(byte, slope, offset, BF16: tl.constexpr, WIDE: tl.constexpr):
    """Low and high nibbles, two's complement, times `slope`, as numbers of 16 bits.

    With 0x43 above it, a byte n < 128 is 128 + n in bfloat16; with 0x64 it is 1024 + n in float16. So a
    number is put together from two bytes; one multiply-add takes the offset away, -136 or -1032 slopes
    (`offset_of`), and is exact where those are: for slopes that are powers of two.
    """
    if WIDE:
        wide = byte.to(tl.int32) ^ 0x88
        return ((wide & 15).to(tl.float32) - 8.0) * slope, ((wide >> 4).to(tl.float32) - 8.0) * slope
    elif BF16:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 t, u, h;
            xor.b32 t, $4, 0x88888888; shr.b32 u, t, 4; and.b32 t, t, 0x0F0F0F0F; and.b32 u, u, 0x0F0F0F0F;
            mov.b32 h, 0x43434343;
            prmt.b32 $0, t, h, 0x4140; prmt.b32 $1, t, h, 0x4342;
            prmt.b32 $2, u, h, 0x4140; prmt.b32 $3, u, h, 0x4342;
            fma.rn.bf16x2 $0, $0, $5, $7; fma.rn.bf16x2 $1, $1, $6, $8;
            fma.rn.bf16x2 $2, $2, $5, $7; fma.rn.bf16x2 $3, $3, $6, $8; }""",
            "=&r,=&r,=&r,=&r,r,r,r,r,r", [byte, slope, offset], (tl.bfloat16, tl.bfloat16), True, 4,
        )  # fmt: skip
    else:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 t, u, h;
            xor.b32 t, $4, 0x88888888; shr.b32 u, t, 4; and.b32 t, t, 0x0F0F0F0F; and.b32 u, u, 0x0F0F0F0F;
            mov.b32 h, 0x64646464;
            prmt.b32 $0, t, h, 0x4140; prmt.b32 $1, t, h, 0x4342;
            prmt.b32 $2, u, h, 0x4140; prmt.b32 $3, u, h, 0x4342;
            fma.rn.f16x2 $0, $0, $5, $7; fma.rn.f16x2 $1, $1, $6, $8;
            fma.rn.f16x2 $2, $2, $5, $7; fma.rn.f16x2 $3, $3, $6, $8; }""",
            "=&r,=&r,=&r,=&r,r,r,r,r,r", [byte, slope, offset], (tl.float16, tl.float16), True, 4,
        )  # fmt: skip


@triton.jit
def offset_of(slope, BF16: tl.constexpr):
    """Offset of `halves`, in the type of the slope."""
    return (slope.to(tl.float32) * (-136.0 if BF16 else -1032.0)).to(slope.dtype)


@triton.jit
def _factor(
    words, piece: tl.constexpr, KIND: tl.constexpr, BN: tl.constexpr, COUNT: tl.constexpr, BF16: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Scales out of 32-bit words, (BN, COUNT / scales a word) of them; kinds are those of `KINDS`.

    As 16-bit numbers, of which powers of two and small integers are exact. Two scales of a byte are half of a
    word, which `piece` says.
    """
    # each number at the upper end of a word, where its sign is that of the word; shifts by constants, as
    # anything else would keep the compiler from reading all operands in the layout of the product
    if KIND < 2 and COUNT == 2:
        top = tl.join(words << (24 - 16 * piece), words << (16 - 16 * piece))
    elif KIND < 2:
        top = tl.join(tl.join(words << 24, words << 8), tl.join(words << 16, words))
    elif KIND < 4:
        top = tl.join(words << 16, words)
    else:
        top = words
    top = tl.reshape(top, (BN, COUNT))
    if KIND == 0:
        scale = (((top >> 24) + 127) << 23).to(tl.float32, bitcast=True)
    elif KIND == 1:
        scale = ((top >> 24) & 255).to(tl.float32)
    elif KIND == 3:
        scale = (top >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    elif KIND == 2:
        scale = (top & -65536).to(tl.float32, bitcast=True)  # without its neighbour in the lower half
    else:
        scale = top.to(tl.float32, bitcast=True)
    if WIDE:
        return scale
    elif BF16:
        return scale.to(tl.bfloat16)
    else:
        return scale.to(tl.float16)


@triton.jit
def _spread(factor, BN: tl.constexpr, AT_ONCE: tl.constexpr, HALF: tl.constexpr):
    """Scales of groups for each of their bytes."""
    return tl.reshape(tl.broadcast_to(factor[:, :, None], (BN, AT_ONCE, HALF)), (BN, AT_ONCE * HALF))


@triton.jit
def few_rows_scaled(
    x_ptr, packed_ptr, scale_ptr, column_ptr, bias_ptr, out_ptr, part_ptr, count_ptr, M, N, row_bytes, groups,
    x_stride, per_split,
    GROUP: tl.constexpr, KIND: tl.constexpr, HAS_COLUMN: tl.constexpr, HAS_BIAS: tl.constexpr,
    SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, AT_ONCE: tl.constexpr, PIECES: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Sum `BN` output channels over a share of the groups; sizes are multiples of the tiles.

    Codes, input and scales of a step come through the copy pipeline, several steps ahead. It moves words of
    32 bits and more, so scales are read by the word. In two pieces a step holds half of it in registers.
    """
    HALF: tl.constexpr = GROUP // 2
    GROUPS: tl.constexpr = AT_ONCE // PIECES
    BYTES: tl.constexpr = HALF * GROUPS
    PER: tl.constexpr = 4 if KIND < 2 else (2 if KIND < 4 else 1)
    BF16: tl.constexpr = x_ptr.dtype.element_ty == tl.bfloat16
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    rows = tl.program_id(1) * BM + tl.arange(0, BM)
    inside_m = rows < M
    # of a tile of 16, rows that are not there are read as the last one: a mask costs an instruction or two a
    # load; of a tile of 8 perhaps one row is there, and reading the others costs more
    MASKED: tl.constexpr = BM < 16
    read = rows if MASKED else tl.minimum(rows, M - 1).to(tl.int64)
    j = tl.arange(0, BYTES)
    first = tl.program_id(2) * per_split
    last = min(first + per_split, groups)
    bytes_ptr = packed_ptr + columns.to(tl.int64)[:, None] * row_bytes + j[None, :]
    words_ptr = x_ptr.to(tl.pointer_type(tl.int32)) + read[None, :] * (x_stride // 2) + j[:, None]
    scales_ptr = scale_ptr.to(tl.pointer_type(tl.int32)) + columns[:, None] * (groups // PER)
    scales_ptr += tl.arange(0, AT_ONCE // PER)[None, :]
    # powers of two stay exact in one multiply-add; float16 would overflow
    FOLDED: tl.constexpr = BF16 and KIND == 0
    one = tl.full((BN, BYTES), 1.0, tl.float32 if WIDE else x_ptr.dtype.element_ty)
    total = tl.zeros((BN, BM), tl.float32)
    for start in range(first, last, AT_ONCE):
        scale = tl.load(scales_ptr + start // PER)
        for piece in tl.static_range(PIECES):
            at = (start + piece * GROUPS) * HALF
            byte = tl.load(bytes_ptr + at)
            if MASKED:
                word = tl.load(words_ptr + at, mask=inside_m[None, :], other=0)
            else:
                word = tl.load(words_ptr + at)
            even, odd = pairs(word, BF16)
            slope = _spread(_factor(scale, piece, KIND, BN, GROUPS, BF16, WIDE), BN, GROUPS, HALF)
            if FOLDED:
                low, high = halves(byte, slope, offset_of(slope, BF16), BF16, WIDE)
            else:
                low, high = halves(byte, one, offset_of(one, BF16), BF16, WIDE)
                low, high = low * slope, high * slope
            total = half_dot(low, even, total, WIDE)
            total = half_dot(high, odd, total, WIDE)
    if HAS_COLUMN:
        total *= tl.load(column_ptr + columns).to(tl.float32)[:, None]
    mask = (columns < N)[:, None] & inside_m[None, :]
    finished(total, part_ptr, count_ptr, bias_ptr, out_ptr, columns, rows, mask, M, N, HAS_BIAS, SPLIT)
