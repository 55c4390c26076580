"""Triton kernel of `quantize` for many rows and a branch, in one launch that reads memory once.

A row's unit is known when all of the row was read, so its codes come from a second look at the input. Here
the second look follows the first closely enough to find the input in the cache. Work is a list of items, a
block of rows by a share of the columns, that programs take one after the other:

1. look at item i: its part of the down-projection, and its largest values;
2. the program that completes a block of rows adds up what all found of it, in order: units and branch;
3. write the codes of item i - `lag`, whose block was completed meanwhile.

Programs take items in order and look before they wait, so what one waits for is always on its way, however
few of them run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.rows.code_kernels import codes_of, magnitude, power, row_unit, store_branch
from kernels.rows.quantize_kernels import KINDS
from kernels.tuned.configs import Config
from kernels.tuned.dots import half_dot
from kernels.tuned.launching import counters, multiprocessors

WIDE_RANK = 64
"""Above this rank a program takes the registers of a multiprocessor for itself."""


@triton.jit
def _steps(x, k, K, smooth_ptr, shift, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, EVEN: tl.constexpr):
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
def _tile(x_rows, inside, k, K, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(x_rows + k[None, :], mask=inside[:, None], other=0.0)
    else:
        return tl.load(x_rows + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)


@triton.jit
def _looked(
    x_ptr, down_ptr, smooth_ptr, low_ptr, peak_ptr, row0, column0, last, split, M, K, x_stride, shift,
    RANK: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    low = tl.zeros((BM, RANK), tl.float32)
    peak = tl.zeros((BM, BK), tl.float32)
    rows = row0 + tl.arange(0, BM)
    inside = rows < M
    ranks = tl.arange(0, RANK)
    x_rows = x_ptr + rows.to(tl.int64)[:, None] * x_stride
    for column in range(column0, last, BK):
        k = column + tl.arange(0, BK)
        x = _tile(x_rows, inside, k, K, EVEN)
        down = _tile(down_ptr + ranks[:, None] * K, ranks < RANK, k, K, EVEN)
        low = half_dot(x, down.T, low, WIDE)
        y = _steps(x, k, K, smooth_ptr, shift, HAS_SMOOTH, HAS_SHIFT, EVEN)
        # a NaN must win; two operations a value with the absolute value that comes with a maximum
        peak = tl.maximum(peak, tl.abs(y), propagate_nan=tl.PropagateNan.ALL)
    at = split.to(tl.int64) * M + rows
    tl.store(low_ptr + at[:, None] * RANK + ranks[None, :], low, mask=inside[:, None])
    tl.store(peak_ptr + at, tl.max(magnitude(peak), 1), mask=inside)


@triton.jit
def _completed(
    low_ptr, peak_ptr, code_ptr, scale_ptr, inverse_ptr, lift_ptr, out_ptr, row0, M, K_PAD, code_stride,
    KIND: tl.constexpr, TOP: tl.constexpr, FINE_TOP: tl.constexpr, RANK: tl.constexpr, APPEND: tl.constexpr,
    SPLIT: tl.constexpr, BM: tl.constexpr,
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
        lift = store_branch(low, inverse, columns, inside, RANK)
    else:
        branch = out_ptr + rows.to(tl.int64)[:, None] * RANK + ranks[None, :]
        tl.store(branch, low.to(out_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(scale_ptr + rows, unit * power(lift), mask=inside)
    tl.store(inverse_ptr + rows, inverse, mask=inside)
    tl.store(lift_ptr + rows, lift, mask=inside)


@triton.jit
def _written(
    x_ptr, smooth_ptr, inverse_ptr, lift_ptr, code_ptr, row0, column0, last, M, K, K_PAD, x_stride,
    code_stride, shift,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Codes of an item."""
    rows = row0 + tl.arange(0, BM)
    inside = rows < M
    inverse = tl.load(inverse_ptr + rows, mask=inside, other=0.0, cache_modifier=".cg")
    lift = tl.load(lift_ptr + rows, mask=inside, other=0, cache_modifier=".cg")
    x_rows = x_ptr + rows.to(tl.int64)[:, None] * x_stride
    code_rows = code_ptr + rows.to(tl.int64)[:, None] * code_stride
    for column in range(column0, last, BK):
        k = column + tl.arange(0, BK)
        y = _steps(_tile(x_rows, inside, k, K, EVEN), k, K, smooth_ptr, shift, HAS_SMOOTH, HAS_SHIFT, EVEN)
        code = codes_of(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
        tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])


@triton.jit
def _fused(
    x_ptr, smooth_ptr, down_ptr, low_ptr, peak_ptr, inverse_ptr, lift_ptr, code_ptr, scale_ptr, out_ptr,
    count_ptr, M, K, K_PAD, x_stride, code_stride, shift, blocks, share, lag,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    RANK: tl.constexpr, APPEND: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr,
    SPLIT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    PIECE: tl.constexpr = 32
    arrived_ptr = count_ptr + 2
    ready_ptr = arrived_ptr + blocks
    items = blocks * SPLIT
    item = tl.atomic_add(count_ptr, 1, sem="relaxed")
    while item < items + lag:
        upcoming = tl.atomic_add(count_ptr, 1, sem="relaxed")
        if item < items:
            block = item // SPLIT
            split = item % SPLIT
            row0 = block * BM
            _looked(
                x_ptr, down_ptr, smooth_ptr, low_ptr, peak_ptr, row0, split * share,
                min((split + 1) * share, K), split, M, K, x_stride, shift, RANK, HAS_SMOOTH, HAS_SHIFT, BM,
                BK, EVEN, WIDE,
            )  # fmt: skip
            tl.debug_barrier()  # all threads have stored before one of them counts
            if tl.atomic_add(arrived_ptr + block, 1, sem="acq_rel") == SPLIT - 1:
                for piece in range(BM // PIECE):  # all at once would not fit the registers
                    _completed(
                        low_ptr, peak_ptr, code_ptr, scale_ptr, inverse_ptr, lift_ptr, out_ptr,
                        row0 + piece * PIECE, M, K_PAD, code_stride, KIND, TOP, FINE_TOP, RANK, APPEND, SPLIT,
                        PIECE,
                    )  # fmt: skip
                tl.debug_barrier()
                tl.atomic_xchg(ready_ptr + block, 1, sem="release")
        if item >= lag:
            before = item - lag
            block = before // SPLIT
            ready = tl.atomic_add(ready_ptr + block, 0, sem="acquire")
            while ready == 0:
                ready = tl.atomic_add(ready_ptr + block, 0, sem="acquire")
            column0 = before % SPLIT * share
            _written(
                x_ptr, smooth_ptr, inverse_ptr, lift_ptr, code_ptr, block * BM, column0,
                min(column0 + share, K_PAD), M, K, K_PAD, x_stride, code_stride, shift, KIND, TOP, LEAST,
                FINE_TOP, GROUP, HAS_SMOOTH, HAS_SHIFT, BM, BK, EVEN, WIDE,
            )  # fmt: skip
        item = upcoming
    if tl.atomic_add(count_ptr + 1, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        # the last program to leave puts the zeros back
        for first in range(0, 2 * blocks + 2, 128):
            at = first + tl.arange(0, 128)
            tl.store(count_ptr + at, 0, mask=at < 2 * blocks + 2)


def fits(x: Tensor, down: Tensor) -> bool:
    """Whether rows can be read sixteen bytes at a time."""
    bytes_ = x.element_size()
    return (
        x.stride(0) * bytes_ % 16 == 0 and x.shape[1] * bytes_ % 16 == 0 and x.data_ptr() % 16 == 0
        and down.data_ptr() % 16 == 0
    )  # fmt: skip


def quantize_fused(
    x: Tensor, inverse: Tensor | None, down: Tensor, codes: Tensor, scale: Tensor, out: Tensor | None,
    kind: str, limits: tuple[int, int, int], group: int, shift: float, padded: int, config: Config,
) -> None:  # fmt: skip
    """Write codes, scales and (where it is not appended) the branch.

    Of a config: `block_m` rows and `block_k` columns of a step; `split` items a block of rows; `halves`
    programs a multiprocessor; `group_m` times the programs is the lag in items, in quarters.
    """
    (m, k), rank, (top, least, fine_top) = x.shape, down.shape[0], limits
    step = max(config.block_k, group)
    share = triton.cdiv(triton.cdiv(padded, config.split), step) * step
    split, blocks = triton.cdiv(padded, share), triton.cdiv(m, config.block_m)
    low = torch.empty(split, m, rank, dtype=torch.float32, device=x.device)
    peak, lift = (torch.empty(n, m, dtype=torch.int32, device=x.device) for n in (split, 1))
    inverse_unit = torch.empty(m, dtype=torch.float32, device=x.device)
    beside = config.halves if rank <= WIDE_RANK else 1
    programs = min(multiprocessors(x.device) * beside, split * blocks)
    _fused[(programs,)](
        x, x if inverse is None else inverse, down, low, peak, inverse_unit, lift, codes, scale,
        x if out is None else out, counters(x.device, 2 * blocks + 2),
        m, k, padded, x.stride(0), codes.stride(0), shift, blocks, share,
        max(programs * config.group_m // 4, split),
        KIND=KINDS[kind], TOP=float(top), LEAST=float(least), FINE_TOP=fine_top, GROUP=group, RANK=rank,
        APPEND=out is None, HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0, SPLIT=split,
        BM=config.block_m, BK=step, EVEN=k % step == 0,
        WIDE=paths.INTERPRETED or x.element_size() == 4, num_warps=config.warps, num_stages=config.stages,
        maxnreg=None if paths.INTERPRETED else min(65536 // (config.warps * 32 * beside) // 8 * 8, 255),
    )  # fmt: skip
