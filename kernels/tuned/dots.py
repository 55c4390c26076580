"""Products of 16-bit tiles that are right under Triton's interpreter, too."""

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
    return tl.dot(a, b, total)


@triton.jit
def to_e4m3(x, WIDE: tl.constexpr):
    """Round float32 numbers of at most 448 to float8 e4m3, half to even.

    The interpreter's cast rounds wrongly; `WIDE` rounds to that grid in float32 before, after which the cast is
    exact.
    """
    if WIDE:
        bits = x.to(tl.int32, bitcast=True)
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -1048576).to(tl.float32, bitcast=True)
        small = (x + 24576.0) - 24576.0  # steps of 2^-9
        x = tl.where(tl.abs(x) < 0.015625, small, normal)
    return x.to(tl.float8e4nv)
