"""Two looks at rows: what is found first (down-projection, largest values), and what is written then."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.rows.before_kernels import produced
from kernels.rows.code_kernels import codes_of, magnitude, power, row_unit, store_branch
from kernels.tuned.dots import half_dot


@triton.jit
def steps_of(
    x, k, K, smooth_ptr, shift, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, EVEN: tl.constexpr
):
    """Shifted and smoothed tile in float32."""
    y = x.to(tl.float32)
    if HAS_SHIFT:
        y = tl.where((k < K)[None, :], y + shift, 0.0)
    if HAS_SMOOTH:
        # as a whole tile: a vector would change its layout through shared memory
        at = k[None, :] + tl.zeros(x.shape, tl.int32)
        if EVEN:
            y *= tl.load(smooth_ptr + at)
        else:
            y *= tl.load(smooth_ptr + at, mask=at < K, other=0.0)
    return y


@triton.jit
def tile_of(x_rows, inside, k, K, EVEN: tl.constexpr):
    """Columns `k` of some rows."""
    if EVEN:
        return tl.load(x_rows + k[None, :], mask=inside[:, None], other=0.0)
    else:
        return tl.load(x_rows + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)


@triton.jit
def handed(
    x_ptr, x_stride, rows, inside, k, K, FIRST: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Tile after an activation, which needs no more of a row than itself (and its gate)."""
    x_rows = x_ptr + rows.to(tl.int64)[:, None] * x_stride
    x = tile_of(x_rows, inside, k, K, EVEN)
    return produced(x, x_rows, k, K, inside, 0, 0, 0, 0, 0, 0, 0.0, FIRST, EVEN, 1, WIDE)


@triton.jit
def looked(
    x_ptr, down_ptr, smooth_ptr, low_ptr, peak_ptr, row0, column0, last, split, M, K, x_stride,
    shift,
    RANK: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, FIRST: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Share of a block's down-projection, and its largest values."""
    low = tl.zeros((BM, RANK), tl.float32)
    peak = tl.zeros((BM, BK), tl.float32)
    rows = row0 + tl.arange(0, BM)
    inside = rows < M
    ranks = tl.arange(0, RANK)
    for column in range(column0, last, BK):
        k = column + tl.arange(0, BK)
        x = handed(x_ptr, x_stride, rows, inside, k, K, FIRST, EVEN, WIDE)
        down = tile_of(down_ptr + ranks[:, None] * K, ranks < RANK, k, K, EVEN)
        low = half_dot(x, down.T, low, WIDE)
        y = steps_of(x, k, K, smooth_ptr, shift, HAS_SMOOTH, HAS_SHIFT, EVEN)
        # a NaN must win; two operations a value with the absolute value that comes with a maximum
        peak = tl.maximum(peak, tl.abs(y), propagate_nan=tl.PropagateNan.ALL)
    at = split.to(tl.int64) * M + rows
    tl.store(low_ptr + at[:, None] * RANK + ranks[None, :], low, mask=inside[:, None])
    tl.store(peak_ptr + at, tl.max(magnitude(peak), 1), mask=inside)


@triton.jit
def completed(
    low_ptr, peak_ptr, code_ptr, scale_ptr, inverse_ptr, lift_ptr, out_ptr, balance_ptr, row0, M, K_PAD,
    code_stride,
    KIND: tl.constexpr, TOP: tl.constexpr, FINE_TOP: tl.constexpr, RANK: tl.constexpr, APPEND: tl.constexpr,
    BALANCED: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Units, branch and scales of a block of rows, from what all its programs found."""
    rows = row0 + tl.arange(0, BM)
    inside = rows < M
    ranks = tl.arange(0, RANK)
    peak = tl.zeros((BM,), tl.int32)
    low = tl.zeros((BM, RANK), tl.float32)
    for split in tl.static_range(SPLIT):
        # past the nearest cache, which does not see what other programs wrote
        at = split * M + rows
        peak = tl.maximum(peak, tl.load(peak_ptr + at, mask=inside, other=0, cache_modifier=".cg"))
        low_at = low_ptr + at.to(tl.int64)[:, None] * RANK + ranks[None, :]
        low += tl.load(low_at, mask=inside[:, None], other=0.0, cache_modifier=".cg")
    unit = tl.div_rn(peak.to(tl.float32, bitcast=True), tl.full((BM,), TOP, tl.float32))
    unit, inverse = row_unit(unit, KIND, FINE_TOP)
    lift = tl.zeros((BM,), tl.int32)
    if APPEND:
        columns = code_ptr + rows.to(tl.int64)[:, None] * code_stride + K_PAD
        lift = store_branch(low, inverse, balance_ptr, columns, inside, RANK, BALANCED)
    else:
        branch = out_ptr + rows.to(tl.int64)[:, None] * RANK + ranks[None, :]
        tl.store(branch, low.to(out_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(scale_ptr + rows, unit * power(lift), mask=inside)
    tl.store(inverse_ptr + rows, inverse, mask=inside)
    tl.store(lift_ptr + rows, lift, mask=inside)


@triton.jit
def written(
    x_ptr, smooth_ptr, inverse_ptr, lift_ptr, code_ptr, row0, column0, last, M, K, K_PAD,
    x_stride, code_stride, shift,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, FIRST: tl.constexpr, BM: tl.constexpr,
    BK: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Codes of an item."""
    rows = row0 + tl.arange(0, BM)
    inside = rows < M
    inverse = tl.load(inverse_ptr + rows, mask=inside, other=0.0, cache_modifier=".cg")
    lift = tl.load(lift_ptr + rows, mask=inside, other=0, cache_modifier=".cg")
    code_rows = code_ptr + rows.to(tl.int64)[:, None] * code_stride
    for column in range(column0, last, BK):
        k = column + tl.arange(0, BK)
        x = handed(x_ptr, x_stride, rows, inside, k, K, FIRST, EVEN, WIDE)
        y = steps_of(x, k, K, smooth_ptr, shift, HAS_SMOOTH, HAS_SHIFT, EVEN)
        code = codes_of(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
        tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])
