"""Arithmetic on tiles that is right under Triton's interpreter, too."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def half_dot(a, b, total, WIDE: tl.constexpr):
    """Add the product of two 16-bit tiles to a float32 sum.

    The interpreter keeps bfloat16 as its bit pattern and multiplies that; `WIDE` casts to float32 before.
    """
    if WIDE:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        return tl.dot(a, b, total)


@triton.jit
def on_e4m3_grid(x):
    """Round float32 numbers of at most 448 to the nearest number of float8 e4m3, half to even, as float32."""
    bits = x.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -1048576).to(tl.float32, bitcast=True)
    small = (x + 24576.0) - 24576.0  # steps of 2^-9
    return tl.where(tl.abs(x) < 0.015625, small, normal)


@triton.jit
def to_e4m3(x, WIDE: tl.constexpr):
    """Cast float32 numbers of at most 448 to float8 e4m3, NaN to NaN.

    The interpreter's cast rounds wrongly and makes a number of a NaN; `WIDE` rounds before, after which the
    cast is exact, and writes the NaN itself.
    """
    if WIDE:
        bits = on_e4m3_grid(x).to(tl.float8e4nv).to(tl.uint8, bitcast=True)
        return tl.where(x == x, bits, 0x7F).to(tl.uint8).to(tl.float8e4nv, bitcast=True)
    else:
        return x.to(tl.float8e4nv)


@triton.jit
def two_e4m3(x):
    """Write float32 numbers of at most 448 as the sum of two float8 e4m3 numbers.

    The first is rounded in float32 and only then cast: the assembler in Triton 3.6 reads the wrong register
    where a float8 is widened right after it was narrowed (seen on an H200: NaN in most tile shapes).
    """
    high = on_e4m3_grid(x)
    return high.to(tl.float8e4nv), on_e4m3_grid(x - high).to(tl.float8e4nv)


@triton.jit
def ahead(base, first, size, COUNT: tl.constexpr):
    """Bring `COUNT` neighbouring numbers, those below `size`, to the nearest cache."""
    STEP: tl.constexpr = 128 // (base.dtype.element_ty.primitive_bitwidth // 8)
    LINES: tl.constexpr = (COUNT + STEP - 1) // STEP
    at = base + tl.minimum(first + tl.arange(0, LINES) * STEP, size - 1)
    tl.inline_asm_elementwise(
        "prefetch.global.L1 [$1]; mov.b32 $0, 0;", "=r,l", [at.to(tl.int64)], tl.int32, False, 1
    )
