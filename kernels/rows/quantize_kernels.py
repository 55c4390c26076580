"""Triton kernel of `quantize`: smoothing, scales, codes and the low-rank down-projection in one launch.

A program owns whole rows. It walks their columns twice: once for the largest value and the product with the
down-projection, once for the codes. What the first walk read stays in registers (`KEEP`) or is read again from
the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.tuned.configs import Config
from kernels.tuned.dots import half_dot, to_e4m3

INT_TOKEN, INT_GROUP, POW2_GROUP, E4M3_TOKEN = 0, 1, 2, 3
KINDS = {"int_token": INT_TOKEN, "int_group": INT_GROUP, "pow2_group": POW2_GROUP, "e4m3_token": E4M3_TOKEN}


@triton.jit
def _rounded(x):
    # adding and taking away 1.5 2^23 rounds half to even; exact for |x| < 2^22
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _magnitude(x):
    # the bits of |x| compare as the numbers do, with NaN above infinity: a maximum that no NaN escapes
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _power(exponent):
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr):
    y = x.to(tl.float32)
    if HAS_SHIFT:
        y = tl.where((k < K)[None, :], y + shift, 0.0)
    if HAS_SMOOTH:
        y = y * tl.load(inverse_ptr + k, mask=k < K, other=0.0)[None, :]
    return y


@triton.jit
def _codes(y, inverse, lift, KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr,
           GROUP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    steps = y * inverse[:, None]
    if KIND == 3:
        return to_e4m3(tl.minimum(tl.maximum(steps, -TOP), TOP) * _power(-lift)[:, None], WIDE)
    elif KIND == 0:
        code = tl.minimum(tl.maximum(_rounded(steps), LEAST), TOP)
        return tl.where(steps == steps, code, 0.0).to(tl.int8)
    else:
        grouped = tl.reshape(steps, (BM, BK // GROUP, GROUP))
        wanted = tl.max(_magnitude(grouped), 2).to(tl.float32, bitcast=True) * (1.0 / TOP)
        if KIND == 1:
            fine = tl.minimum(tl.maximum(_rounded(wanted), 1.0), FINE_TOP)
            code = _rounded(grouped * tl.div_rn(tl.full(fine.shape, 1.0, tl.float32), fine)[:, :, None])
            code = tl.minimum(tl.maximum(code, LEAST), TOP) * fine[:, :, None]
            return tl.reshape(tl.where(code == code, code, 0.0), (BM, BK)).to(tl.int8)
        else:
            # nearest power of two: above 2^e sqrt(2) the next one; 0x3504F3 is the mantissa of sqrt(2)
            exponent = ((wanted.to(tl.int32, bitcast=True) + (0x800000 - 0x3504F3)) >> 23) - 127
            exponent = tl.minimum(tl.maximum(exponent, -9), FINE_TOP)
            code = _rounded(grouped * _power(-exponent)[:, :, None])
            code = tl.minimum(tl.maximum(code, LEAST), TOP) * _power(exponent - lift[:, None])[:, :, None]
            return to_e4m3(tl.reshape(code, (BM, BK)), WIDE)


@triton.jit
def _quantize(
    x_ptr, inverse_ptr, down_ptr, code_ptr, scale_ptr, low_ptr, M, K, K_PAD, x_stride, code_stride, shift,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    RANK: tl.constexpr, APPEND: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, CHUNKS: tl.constexpr, KEEP: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = rows < M
    x_rows = x_ptr + rows.to(tl.int64)[:, None] * x_stride
    code_rows = code_ptr + rows.to(tl.int64)[:, None] * code_stride
    ranks = tl.arange(0, RANK if RANK > 0 else 1)
    peak = tl.zeros((BM,), tl.int32)
    low = tl.zeros((BM, RANK if RANK > 0 else 1), tl.float32)
    kept = ()
    if KEEP:
        for chunk in tl.static_range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            if EVEN:
                x = tl.load(x_rows + k[None, :], mask=inside[:, None], other=0.0)
            else:
                x = tl.load(x_rows + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)
            if RANK > 0:
                down = tl.load(down_ptr + ranks[:, None] * K + k[None, :], mask=(k < K)[None, :], other=0.0)
                low = half_dot(x, down.T, low, WIDE)
            y = _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
            peak = tl.maximum(peak, tl.max(_magnitude(y), 1))
            kept = kept + (x,)
    else:
        for chunk in range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            if EVEN:
                x = tl.load(x_rows + k[None, :], mask=inside[:, None], other=0.0)
            else:
                x = tl.load(x_rows + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)
            if RANK > 0:
                down = tl.load(down_ptr + ranks[:, None] * K + k[None, :], mask=(k < K)[None, :], other=0.0)
                low = half_dot(x, down.T, low, WIDE)
            y = _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
            peak = tl.maximum(peak, tl.max(_magnitude(y), 1))
    unit = tl.div_rn(peak.to(tl.float32, bitcast=True), tl.full((BM,), TOP, tl.float32))
    if KIND == 1:
        unit = tl.div_rn(unit, tl.full((BM,), FINE_TOP, tl.float32))
    if KIND == 2:
        unit = unit * (1.0 / (1 << FINE_TOP))
    unit = tl.where(unit < 1.1754943508222875e-38, 1.0, unit)  # a row of zeros; NaN stays
    inverse = tl.div_rn(tl.full((BM,), 1.0, tl.float32), unit)
    lift = tl.zeros((BM,), tl.int32)
    if APPEND:
        # the branch in units of the row; a row whose branch would leave e4m3 gets a coarser unit
        low = low * inverse[:, None]
        most = tl.max(_magnitude(low), 1).to(tl.float32, bitcast=True) * (1.0 / 448.0)
        lift = ((most.to(tl.int32, bitcast=True) + 0x7FFFFF) >> 23) - 127
        lift = tl.minimum(tl.maximum(lift, 0), 64)
        low = low * _power(-lift)[:, None]
        high = to_e4m3(low, WIDE)
        rest = to_e4m3(low - high.to(tl.float32), WIDE)
        at = code_rows + K_PAD + ranks[None, :]
        tl.store(at, high, mask=inside[:, None])
        tl.store(at + RANK, high, mask=inside[:, None])
        tl.store(at + 2 * RANK, rest, mask=inside[:, None])
        tl.store(at + 3 * RANK, rest, mask=inside[:, None])
    elif RANK > 0:
        at = low_ptr + rows.to(tl.int64)[:, None] * RANK + ranks[None, :]
        tl.store(at, low.to(low_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(scale_ptr + rows, unit * _power(lift), mask=inside)
    if KEEP:
        for chunk in tl.static_range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            y = _smoothed(kept[chunk], k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
            code = _codes(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
            if EVEN:
                tl.store(code_rows + k[None, :], code, mask=inside[:, None])
            else:
                tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])
    else:
        for chunk in range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            if EVEN:
                x = tl.load(x_rows + k[None, :], mask=inside[:, None], other=0.0)
            else:
                x = tl.load(x_rows + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)
            y = _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
            code = _codes(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
            if EVEN:
                tl.store(code_rows + k[None, :], code, mask=inside[:, None])
            else:
                tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])


def launch(
    x: Tensor, inverse: Tensor | None, down: Tensor | None, codes: Tensor, scale: Tensor, low: Tensor | None,
    kind: str, top: int, least: int, fine_top: int, group: int, shift: float, padded: int, config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `codes`, `scale` and `low`; see `kernels.rows.quantize`."""
    m, k = x.shape
    rank = 0 if down is None else down.shape[0]
    block_k = max(config.block_k, group)
    block_k = min(block_k, triton.next_power_of_2(max(padded, group)))
    append = rank > 0 and low is None
    _quantize[(triton.cdiv(m, config.block_m),)](
        x, x if inverse is None else inverse, x if down is None else down, codes, scale, x if low is None else low,
        m, k, padded, x.stride(0), codes.stride(0), shift,
        KIND=KINDS[kind], TOP=float(top), LEAST=float(least), FINE_TOP=fine_top, GROUP=group,
        RANK=rank, APPEND=append, HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0,
        BM=config.block_m, BK=block_k, CHUNKS=triton.cdiv(padded, block_k), KEEP=config.keep,
        EVEN=k % block_k == 0, WIDE=paths.interpreted() or x.element_size() == 4,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
