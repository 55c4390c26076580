"""Triton kernel of `quantize` for many rows in one launch that reads its input once.

An item, a block of rows by a share of the columns, stays in the registers of the program that looked at it.
The programs of a block of rows wait for each other: the last to arrive completes the rows' units, then each
writes the codes of what it holds. Where a multiprocessor has several programs, one loads while another waits.

A program takes its next item when it waits for nobody any more. So of the earliest block that is not
complete, the items that are taken are being looked at, and those that are not will be taken by programs that
do not wait, if there are as many programs as items of a block: `quantize_many` sees to that.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.rows.code_kernels import codes_of, magnitude
from kernels.rows.look_kernels import completed, handed, steps_of, tile_of
from kernels.tuned.dots import half_dot


@triton.jit
def _again(x, WIDE: tl.constexpr):
    """Hide from the compiler that numbers are known: it would keep them widened, in twice the registers."""
    if WIDE:
        return x
    else:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], x.dtype, False, 2)


@triton.jit
def held(
    x_ptr, second_ptr, smooth_ptr, down_ptr, low_ptr, peak_ptr, inverse_ptr, lift_ptr, code_ptr, scale_ptr,
    out_ptr, balance_ptr, count_ptr, M, K, K_PAD, x_stride, second_stride, border, code_stride, shift, blocks,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    RANK: tl.constexpr, APPEND: tl.constexpr, BALANCED: tl.constexpr, HAS_SMOOTH: tl.constexpr,
    HAS_SHIFT: tl.constexpr, FIRST: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    CHUNKS: tl.constexpr, PIECE: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Take items one after the other until there are none."""
    arrived_ptr = count_ptr + 2
    ready_ptr = arrived_ptr + blocks
    ranks = tl.arange(0, RANK)
    item = tl.atomic_add(count_ptr, 1, sem="relaxed")
    while item < blocks * SPLIT:
        block = item // SPLIT
        split = item % SPLIT
        column0 = split * (BK * CHUNKS)
        rows = block * BM + tl.arange(0, BM)
        inside = rows < M
        kept = ()
        for chunk in tl.static_range(CHUNKS):
            column = column0 + chunk * BK
            k = column + tl.arange(0, BK)
            x = handed(
                x_ptr,
                x_stride,
                second_ptr,
                second_stride,
                border,
                rows,
                inside,
                column,
                k,
                K,
                FIRST,
                EVEN,
                WIDE,
            )
            kept = kept + (x,)  # noqa: RUF005 - unpacking is not Triton
        low = tl.zeros((BM, RANK), tl.float32)
        peak = tl.zeros((BM, BK), tl.float32)
        for chunk in tl.static_range(CHUNKS):
            k = column0 + chunk * BK + tl.arange(0, BK)
            down = tile_of(down_ptr + ranks[:, None] * K, ranks < RANK, k, K, EVEN)
            low = half_dot(kept[chunk], down.T, low, WIDE)
            y = steps_of(kept[chunk], k, K, smooth_ptr, shift, HAS_SMOOTH, HAS_SHIFT, EVEN)
            # a NaN must win
            peak = tl.maximum(peak, tl.abs(y), propagate_nan=tl.PropagateNan.ALL)
        at = split.to(tl.int64) * M + rows
        tl.store(low_ptr + at[:, None] * RANK + ranks[None, :], low, mask=inside[:, None])
        tl.store(peak_ptr + at, tl.max(magnitude(peak), 1), mask=inside)
        tl.debug_barrier()  # all threads have stored before one of them counts
        if tl.atomic_add(arrived_ptr + block, 1, sem="acq_rel") == SPLIT - 1:
            for piece in range(BM // PIECE):  # all at once would not fit the registers
                completed(
                    low_ptr, peak_ptr, code_ptr, scale_ptr, inverse_ptr, lift_ptr, out_ptr, balance_ptr,
                    block * BM + piece * PIECE, M, K_PAD, code_stride, KIND, TOP, FINE_TOP, RANK, APPEND,
                    BALANCED, SPLIT, PIECE,
                )  # fmt: skip
            tl.debug_barrier()
            tl.atomic_xchg(ready_ptr + block, 1, sem="release")
        ready = tl.atomic_add(ready_ptr + block, 0, sem="acquire")
        while ready == 0:
            ready = tl.atomic_add(ready_ptr + block, 0, sem="acquire")
        # not before: a program that waits must not have an item that others wait for
        upcoming = tl.atomic_add(count_ptr, 1, sem="relaxed")
        inverse = tl.load(inverse_ptr + rows, mask=inside, other=0.0, cache_modifier=".cg")
        lift = tl.load(lift_ptr + rows, mask=inside, other=0, cache_modifier=".cg")
        code_rows = code_ptr + rows.to(tl.int64)[:, None] * code_stride
        for chunk in tl.static_range(CHUNKS):
            k = column0 + chunk * BK + tl.arange(0, BK)
            x = _again(kept[chunk], WIDE)
            y = steps_of(x, k, K, smooth_ptr, shift, HAS_SMOOTH, HAS_SHIFT, EVEN)
            code = codes_of(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
            tl.store(code_rows + k[None, :], code, mask=inside[:, None] & (k < K_PAD)[None, :])
        item = upcoming
    if tl.atomic_add(count_ptr + 1, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        # the last program to leave puts the zeros back
        for first in range(0, 2 * blocks + 2, 128):
            at = first + tl.arange(0, 128)
            tl.store(count_ptr + at, 0, mask=at < 2 * blocks + 2)
