"""Rounding of a tile to codes, shared by the kernels that write operands."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.tuned.dots import to_e4m3, two_e4m3


@triton.jit
def rounded(x):
    """Round half to even; exact for |x| < 2^22."""
    return (x + 12582912.0) - 12582912.0  # 1.5 2^23


@triton.jit
def magnitude(x):
    """Bits of |x|: they compare as the numbers do, with NaN above infinity, so no NaN escapes a maximum."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def clipped(x, least, most):
    """Clip, and keep a NaN: an infinity over its own scale is one, and a given scale may see one."""
    x = tl.maximum(x, least, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(x, most, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def power(exponent):
    """2^exponent, -126 .. 127."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def row_unit(unit, KIND: tl.constexpr, FINE_TOP: tl.constexpr):
    """Turn the value of a largest code into the unit of its row, and its inverse.

    It is 1 for a row of zeros, and NaN for one that holds a NaN or an infinity.
    """
    if KIND == 1:
        unit = tl.div_rn(unit, tl.full(unit.shape, FINE_TOP, tl.float32))
    if KIND == 2:
        unit = unit * (1.0 / (1 << FINE_TOP))
    unit = tl.where(unit < 1.1754943508222875e-38, 1.0, unit)
    unit = tl.where(unit < float("inf"), unit, float("nan"))
    return unit, tl.div_rn(tl.full(unit.shape, 1.0, tl.float32), unit)


@triton.jit
def store_branch(low, inverse, balance_ptr, columns, inside, RANK: tl.constexpr, BALANCED: tl.constexpr):
    """Append the branch to operands, in units of the rows and with its powers of two.

    Returns the power of two by which a row's unit is coarser, so that its branch stays within e4m3.
    """
    if BALANCED:
        low = low * tl.load(balance_ptr + tl.arange(0, RANK))[None, :]
    low = low * inverse[:, None]
    most = tl.max(magnitude(low), 1).to(tl.float32, bitcast=True) * (1.0 / 448.0)
    lift = ((most.to(tl.int32, bitcast=True) + 0x7FFFFF) >> 23) - 127
    lift = tl.minimum(tl.maximum(lift, 0), 64)
    high, rest = two_e4m3(low * power(-lift)[:, None])
    at = columns + tl.arange(0, RANK)[None, :]
    tl.store(at, high, mask=inside[:, None])
    tl.store(at + RANK, high, mask=inside[:, None])
    tl.store(at + 2 * RANK, rest, mask=inside[:, None])
    tl.store(at + 3 * RANK, rest, mask=inside[:, None])
    return lift


@triton.jit
def codes_of(
    y, inverse, lift, KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr,
    GROUP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Operand of a tile: see the table in `kernels.rows.quantize`; kinds are numbered as there."""
    if KIND == 3:
        steps = y * (inverse * power(-lift))[:, None]
        most = (TOP * power(-lift))[:, None]
        return to_e4m3(clipped(steps, -most, most), WIDE)
    elif KIND == 0:
        steps = y * inverse[:, None]
        code = tl.minimum(tl.maximum(rounded(tl.minimum(tl.maximum(steps, LEAST), TOP)), LEAST), TOP)
        return tl.where(steps == steps, code, 0.0).to(tl.int8)
    else:
        largest = tl.max(tl.abs(tl.reshape(y, (BM, BK // GROUP, GROUP))), 2)
        wanted = largest * inverse[:, None] * (1.0 / TOP)
        if KIND == 1:
            grouped = tl.reshape(y * inverse[:, None], (BM, BK // GROUP, GROUP))
            fine = tl.minimum(tl.maximum(rounded(wanted), 1.0), FINE_TOP)
            code = rounded(grouped * tl.div_rn(tl.full(fine.shape, 1.0, tl.float32), fine)[:, :, None])
            code = tl.minimum(tl.maximum(code, LEAST), TOP) * fine[:, :, None]
            return tl.reshape(tl.where(code == code, code, 0.0), (BM, BK)).to(tl.int8)
        else:
            # nearest power of two: above 2^e sqrt(2) the next one; 0x3504F3 is the mantissa of sqrt(2)
            exponent = ((wanted.to(tl.int32, bitcast=True) + (0x800000 - 0x3504F3)) >> 23) - 127
            step = tl.minimum(tl.maximum(exponent, -9), FINE_TOP) - lift[:, None]
            # adding and taking away 1.5 2^23 steps rounds to whole steps: no scaling there and back
            shift = (((step + 150) << 23) | 0x400000).to(tl.float32, bitcast=True)[:, :, None]
            grouped = tl.reshape(y * (inverse * power(-lift))[:, None], (BM, BK // GROUP, GROUP))
            size = power(step)[:, :, None]
            code = clipped((grouped + shift) - shift, LEAST * size, TOP * size)
            return to_e4m3(tl.reshape(code, (BM, BK)), WIDE)
