"""Triton kernel of `quantize`: what comes before, smoothing, scales, codes and the branch's down-projection.

A program owns whole rows. It walks their columns once for the statistics of a layer norm (if there is one),
once for the largest value and the product with the down-projection, and once for the codes. What a walk read
stays in registers (`KEEP`) or is read again from the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.rows.before import BEFORE, Before
from kernels.rows.before_kernels import merged, produced
from kernels.rows.code_kernels import codes_of, magnitude, power, row_unit, store_branch
from kernels.tuned.configs import Config
from kernels.tuned.dots import half_dot

KINDS = {"int_token": 0, "int_group": 1, "pow2_group": 2, "e4m3_token": 3}


@triton.jit
def _loaded(x_rows, k, K, inside, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(x_rows + k[None, :], mask=inside[:, None], other=0.0)
    else:
        return tl.load(x_rows + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)


@triton.jit
def _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr):
    y = x.to(tl.float32)
    if HAS_SHIFT:
        y = tl.where((k < K)[None, :], y + shift, 0.0)
    if HAS_SMOOTH:
        # as a whole tile: a vector would change its layout through shared memory, with barriers, for every
        # tile
        at = k[None, :] + tl.zeros(x.shape, tl.int32)
        y = y * tl.load(inverse_ptr + at, mask=at < K, other=0.0)
    return y


@triton.jit
def _seen(
    x, low, peak, k, K, down_ptr, ranks, inverse_ptr, shift, RANK: tl.constexpr, GIVEN: tl.constexpr,
    HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Down-projection and largest values with one more tile of columns."""
    if RANK > 0:
        down = tl.load(down_ptr + ranks[:, None] * K + k[None, :], mask=(k < K)[None, :], other=0.0)
        low = half_dot(x, down.T, low, WIDE)
    if not GIVEN:
        y = _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
        peak = tl.maximum(peak, tl.max(magnitude(y), 1))
    return low, peak


@triton.jit
def _quantize(
    x_ptr, inverse_ptr, down_ptr, code_ptr, scale_ptr, low_ptr, gain_ptr, offset_ptr, given_ptr,
    matrix_ptr, balance_ptr, M, K, K_PAD, x_stride, code_stride, shared, shift, eps, factor,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    RANK: tl.constexpr, APPEND: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr,
    FIRST: tl.constexpr, GIVEN: tl.constexpr, BLOCK: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, CHUNKS: tl.constexpr, KEEP: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr, BALANCED: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = rows < M
    x_rows = x_ptr + rows.to(tl.int64)[:, None] * x_stride
    code_rows = code_ptr + rows.to(tl.int64)[:, None] * code_stride
    sample = rows // shared
    ranks = tl.arange(0, RANK if RANK > 0 else 1)
    mean = tl.zeros((BM,), tl.float32)
    spread = tl.zeros((BM,), tl.float32)
    raw = ()
    if FIRST == 5:
        if KEEP:
            for chunk in tl.static_range(CHUNKS):
                k = chunk * BK + tl.arange(0, BK)
                x = _loaded(x_rows, k, K, inside, EVEN)
                mean, spread = merged(x, k, K, chunk * BK, mean, spread, BK)
                raw = raw + (x,)  # noqa: RUF005 - unpacking is not Triton
        else:
            for chunk in range(CHUNKS):
                k = chunk * BK + tl.arange(0, BK)
                mean, spread = merged(_loaded(x_rows, k, K, inside, EVEN), k, K, chunk * BK, mean, spread, BK)
        spread = tl.div_rn(tl.full((BM,), 1.0, tl.float32), tl.sqrt_rn(spread / K + eps))
    peak = tl.zeros((BM,), tl.int32)
    low = tl.zeros((BM, RANK if RANK > 0 else 1), tl.float32)
    kept = ()
    if KEEP:
        for chunk in tl.static_range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            if FIRST == 5:
                x = raw[chunk]
            else:
                x = _loaded(x_rows, k, K, inside, EVEN)
            x = produced(
                x, x_rows, k, K, inside, sample, mean, spread, gain_ptr, offset_ptr, matrix_ptr, factor,
                FIRST, EVEN, BLOCK, WIDE,
            )  # fmt: skip
            low, peak = _seen(
                x, low, peak, k, K, down_ptr, ranks, inverse_ptr, shift, RANK, GIVEN, HAS_SMOOTH, HAS_SHIFT,
                WIDE,
            )  # fmt: skip
            kept = kept + (x,)  # noqa: RUF005
    elif RANK > 0 or not GIVEN:
        for chunk in range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            x = _loaded(x_rows, k, K, inside, EVEN)
            x = produced(
                x, x_rows, k, K, inside, sample, mean, spread, gain_ptr, offset_ptr, matrix_ptr, factor,
                FIRST, EVEN, BLOCK, WIDE,
            )  # fmt: skip
            low, peak = _seen(
                x, low, peak, k, K, down_ptr, ranks, inverse_ptr, shift, RANK, GIVEN, HAS_SMOOTH, HAS_SHIFT,
                WIDE,
            )  # fmt: skip
    if GIVEN:
        unit = tl.load(given_ptr + sample, mask=inside, other=1.0)
    else:
        unit = tl.div_rn(peak.to(tl.float32, bitcast=True), tl.full((BM,), TOP, tl.float32))
    unit, inverse = row_unit(unit, KIND, FINE_TOP)
    lift = tl.zeros((BM,), tl.int32)
    if APPEND:
        lift = store_branch(low, inverse, balance_ptr, code_rows + K_PAD, inside, RANK, BALANCED)
    elif RANK > 0:
        at = low_ptr + rows.to(tl.int64)[:, None] * RANK + ranks[None, :]
        tl.store(at, low.to(low_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(scale_ptr + rows, unit * power(lift), mask=inside)
    if KEEP:
        for chunk in tl.static_range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            y = _smoothed(kept[chunk], k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
            code = codes_of(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
            tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])
    else:
        for chunk in range(CHUNKS):
            k = chunk * BK + tl.arange(0, BK)
            x = _loaded(x_rows, k, K, inside, EVEN)
            x = produced(
                x, x_rows, k, K, inside, sample, mean, spread, gain_ptr, offset_ptr, matrix_ptr, factor,
                FIRST, EVEN, BLOCK, WIDE,
            )  # fmt: skip
            y = _smoothed(x, k, K, inverse_ptr, shift, HAS_SMOOTH, HAS_SHIFT)
            code = codes_of(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
            tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])


def launch(
    x: Tensor, inverse: Tensor | None, down: Tensor | None, codes: Tensor, scale: Tensor, low: Tensor | None,
    given: Tensor | None, balance: Tensor | None, before: Before, kind: str, limits: tuple[int, int, int],
    group: int, shift: float, k: int, padded: int, config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `codes`, `scale` and `low`; see `kernels.rows.quantize`."""
    m, rank = x.shape[0], 0 if down is None else down.shape[0]
    block_k = max(config.block_k, group, before.block)
    block_k = min(block_k, triton.next_power_of_2(max(padded, group, before.block)))
    top, least, fine_top = limits
    gain = x if before.gain is None else before.gain
    _quantize[(triton.cdiv(m, config.block_m),)](
        x, x if inverse is None else inverse, x if down is None else down, codes, scale,
        x if low is None else low,
        gain, gain if before.offset is None else before.offset, scale if given is None else given,
        x if before.matrix is None else before.matrix, scale if balance is None else balance, m, k, padded,
        x.stride(0), codes.stride(0), before.rows, shift, before.eps, before.factor,
        KIND=KINDS[kind], TOP=float(top), LEAST=float(least), FINE_TOP=fine_top, GROUP=group,
        RANK=rank, APPEND=rank > 0 and low is None, HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0,
        FIRST=BEFORE[before.kind], GIVEN=given is not None, BLOCK=before.block,
        BM=config.block_m, BK=block_k, CHUNKS=triton.cdiv(padded, block_k), KEEP=config.keep,
        EVEN=k % block_k == 0, WIDE=paths.INTERPRETED or x.element_size() == 4,
        BALANCED=balance is not None,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
