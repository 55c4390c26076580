"""Triton kernels of `quantize` for many rows and a branch, in three launches.

1. `_project` walks tiles of the input: products with the down-projection on the tensor cores, largest values
   beside them. A sum over K may be split among programs, each writes what it found.
2. `_finish` adds up what the splits found, in order: units of the rows, and the branch.
3. `_encode` sees each tile once and writes codes.

Memory is read once (the last launch finds the input in the cache where it fits).
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
from kernels.tuned.launching import after_previous, allow_descriptors, overlapped

FINISHED = 32
"""Rows of a program of the second launch."""


@triton.jit
def _project(
    x_ptr, inverse_ptr, down_ptr, low_ptr, peak_ptr, M, K, x_stride, shift, per_split,
    RANK: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    COPY_IN: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    row0 = tl.program_id(0) * BM
    split = tl.program_id(1)
    rows = row0 + tl.arange(0, BM)
    ranks = tl.arange(0, RANK)
    if COPY_IN:
        x_desc = tl.make_tensor_descriptor(x_ptr, [M, K], [x_stride, 1], [BM, BK])
        down_desc = tl.make_tensor_descriptor(down_ptr, [RANK, K], [K, 1], [RANK, BK])
    low = tl.zeros((BM, RANK), tl.float32)
    peak = tl.zeros((BM, BK), tl.float32)
    for step in range(split * per_split, min((split + 1) * per_split, tl.cdiv(K, BK))):
        if COPY_IN:
            x = x_desc.load([row0, step * BK])
            down = down_desc.load([0, step * BK])
        else:
            column = step * BK + tl.arange(0, BK)
            x_at = x_ptr + rows.to(tl.int64)[:, None] * x_stride + column[None, :]
            x = tl.load(x_at, mask=(rows < M)[:, None] & (column < K)[None, :], other=0.0)
            down_at = down_ptr + ranks[:, None] * K + column[None, :]
            down = tl.load(down_at, mask=(column < K)[None, :], other=0.0)
        low = half_dot(x, down.T, low, WIDE)
        y = x.to(tl.float32)
        k = step * BK + tl.arange(0, BK)[None, :] + tl.zeros((BM, BK), tl.int32)
        if HAS_SHIFT:
            y = tl.where(k < K, y + shift, 0.0)
        if HAS_SMOOTH:
            if EVEN:
                y *= tl.load(inverse_ptr + k)
            else:
                y *= tl.load(inverse_ptr + k, mask=k < K, other=0.0)
        # a NaN must win; two operations a value with the absolute value that comes with a maximum
        peak = tl.maximum(peak, tl.abs(y), propagate_nan=tl.PropagateNan.ALL)
    inside = rows < M
    at = split.to(tl.int64) * M + rows
    tl.store(low_ptr + at[:, None] * RANK + ranks[None, :], low, mask=inside[:, None])
    tl.store(peak_ptr + at, tl.max(magnitude(peak), 1), mask=inside)


@triton.jit
def _finish(
    low_ptr, peak_ptr, code_ptr, scale_ptr, inverse_ptr, lift_ptr, out_ptr, M, K_PAD, code_stride,
    KIND: tl.constexpr, TOP: tl.constexpr, FINE_TOP: tl.constexpr, RANK: tl.constexpr, APPEND: tl.constexpr,
    SPLIT: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = rows < M
    ranks = tl.arange(0, RANK)
    peak = tl.zeros((BM,), tl.int32)
    low = tl.zeros((BM, RANK), tl.float32)
    for split in tl.static_range(SPLIT):
        peak = tl.maximum(peak, tl.load(peak_ptr + split * M + rows, mask=inside, other=0))
        at = low_ptr + (split * M + rows)[:, None] * RANK + ranks[None, :]
        low += tl.load(at, mask=inside[:, None], other=0.0)
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
def _encode(
    x_ptr, smooth_ptr, inverse_ptr, lift_ptr, code_ptr, M, K, K_PAD, x_stride, code_stride, shift,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    after_previous(OVERLAP)
    # columns are the fast axis of the grid: neighbours share rows; the rows read last are still in the cache
    rows = (tl.num_programs(1) - 1 - tl.program_id(1)) * BM + tl.arange(0, BM)
    inside = rows < M
    k = tl.program_id(0) * BK + tl.arange(0, BK)
    x_at = rows.to(tl.int64)[:, None] * x_stride + k[None, :]
    x = tl.load(x_ptr + x_at, mask=inside[:, None] & (k < K)[None, :], other=0.0)
    inverse = tl.load(inverse_ptr + rows, mask=inside, other=0.0)
    lift = tl.load(lift_ptr + rows, mask=inside, other=0)
    y = x.to(tl.float32)
    if HAS_SHIFT:
        y = tl.where((k < K)[None, :], y + shift, 0.0)
    if HAS_SMOOTH:
        factor = k[None, :] + tl.zeros((BM, BK), tl.int32)
        y = y * tl.load(smooth_ptr + factor, mask=factor < K, other=0.0)
    code = codes_of(y, inverse, lift, KIND, TOP, LEAST, FINE_TOP, GROUP, BM, BK, WIDE)
    code_at = rows.to(tl.int64)[:, None] * code_stride + k[None, :]
    tl.store(code_ptr + code_at, code, mask=inside[:, None] & (k < K_PAD)[None, :])


def fits(x: Tensor, down: Tensor) -> bool:
    """Whether the copy engine can walk this input and this down-projection."""
    bytes_ = x.element_size()
    return (
        x.stride(0) * bytes_ % 16 == 0 and x.shape[1] * bytes_ % 16 == 0 and x.data_ptr() % 16 == 0
        and down.data_ptr() % 16 == 0
    )  # fmt: skip


def project(
    x: Tensor, inverse: Tensor | None, down: Tensor, shift: float, config: Config
) -> tuple[Tensor, Tensor]:
    """Down-projected rows and the bits of their largest values, by split: (S, M, R) and (S, M).

    With ``config.keep`` tiles are loaded through pointers: no descriptors to build, which few steps do not
    repay.
    """
    (m, k), rank = x.shape, down.shape[0]
    steps = triton.cdiv(k, config.block_k)
    per_split = triton.cdiv(steps, min(config.split, steps))
    splits = triton.cdiv(steps, per_split)
    low = torch.empty(splits, m, rank, dtype=torch.float32, device=x.device)
    peak = torch.empty(splits, m, dtype=torch.int32, device=x.device)
    if not config.keep:
        allow_descriptors()
    _project[(triton.cdiv(m, config.block_m), splits)](
        x, x if inverse is None else inverse, down, low, peak, m, k, x.stride(0), shift, per_split,
        RANK=rank, HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0, BM=config.block_m, BK=config.block_k,
        COPY_IN=not config.keep, EVEN=k % config.block_k == 0,
        WIDE=paths.INTERPRETED or x.element_size() == 4, num_warps=config.warps, num_stages=config.stages,
        **overlapped(),
    )  # fmt: skip
    return low, peak


def encode(
    x: Tensor, inverse: Tensor | None, low: Tensor, peak: Tensor, codes: Tensor, scale: Tensor,
    out: Tensor | None,
    kind: str, limits: tuple[int, int, int], group: int, shift: float, padded: int, config: Config,
) -> None:  # fmt: skip
    """Write codes, scales and (where it is not appended) the branch, from what `project` found."""
    (m, k), (top, least, fine_top) = x.shape, limits
    block_k = min(max(config.block_k, group), triton.next_power_of_2(max(padded, group)))
    inverse_unit = torch.empty(m, dtype=torch.float32, device=x.device)
    lift = torch.empty(m, dtype=torch.int32, device=x.device)
    _finish[(triton.cdiv(m, FINISHED),)](
        low, peak, codes, scale, inverse_unit, lift, x if out is None else out, m, padded, codes.stride(0),
        KIND=KINDS[kind], TOP=float(top), FINE_TOP=fine_top, RANK=low.shape[2], APPEND=out is None,
        SPLIT=low.shape[0], BM=FINISHED, num_warps=4, **overlapped(),
    )  # fmt: skip
    _encode[(triton.cdiv(padded, block_k), triton.cdiv(m, config.block_m))](
        x, x if inverse is None else inverse, inverse_unit, lift, codes,
        m, k, padded, x.stride(0), codes.stride(0), shift,
        KIND=KINDS[kind], TOP=float(top), LEAST=float(least), FINE_TOP=fine_top, GROUP=group,
        HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0, BM=config.block_m, BK=block_k,
        WIDE=paths.INTERPRETED or x.element_size() == 4, num_warps=config.warps, **overlapped(),
    )  # fmt: skip
