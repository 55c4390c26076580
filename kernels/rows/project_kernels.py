"""Triton kernels of the two-launch form of `quantize`: for many rows and a branch.

1. `_project` walks tiles of the input through the copy engine: products with the down-projection on the
tensor
   cores, largest values beside them. A sum over K may be split among programs, each writes what it found.
2. `_encode` sees each tile once: it adds up what the first launch wrote for its rows, in order, and writes
codes.

Memory is read once (the second launch finds the input in the cache where it fits).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.rows.code_kernels import codes_of, magnitude, power
from kernels.rows.quantize_kernels import KINDS
from kernels.tuned.configs import Config
from kernels.tuned.dots import half_dot, two_e4m3
from kernels.tuned.launching import allow_descriptors


@triton.jit
def _project(
    x_ptr, inverse_ptr, down_ptr, low_ptr, peak_ptr, M, K, x_stride, shift, per_split,
    RANK: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    row0 = tl.program_id(0) * BM
    split = tl.program_id(1)
    rows = row0 + tl.arange(0, BM)
    ranks = tl.arange(0, RANK)
    x_desc = tl.make_tensor_descriptor(x_ptr, [M, K], [x_stride, 1], [BM, BK])
    down_desc = tl.make_tensor_descriptor(down_ptr, [RANK, K], [K, 1], [RANK, BK])
    low = tl.zeros((BM, RANK), tl.float32)
    peak = tl.zeros((BM, BK), tl.int32)
    for step in range(split * per_split, min((split + 1) * per_split, tl.cdiv(K, BK))):
        x = x_desc.load([row0, step * BK])
        low = half_dot(x, down_desc.load([0, step * BK]).T, low, WIDE)
        y = x.to(tl.float32)
        k = step * BK + tl.arange(0, BK)[None, :] + tl.zeros((BM, BK), tl.int32)
        if HAS_SHIFT:
            y = tl.where(k < K, y + shift, 0.0)
        if HAS_SMOOTH:
            y *= tl.load(inverse_ptr + k, mask=k < K, other=0.0)
        peak = tl.maximum(peak, magnitude(y))
    inside = rows < M
    at = split.to(tl.int64) * M + rows
    tl.store(low_ptr + at[:, None] * RANK + ranks[None, :], low, mask=inside[:, None])
    tl.store(peak_ptr + at, tl.max(peak, 1), mask=inside)


@triton.jit
def _encode(
    x_ptr, inverse_ptr, low_ptr, peak_ptr, code_ptr, scale_ptr, out_ptr, M, K, K_PAD, x_stride, code_stride,
    shift,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    RANK: tl.constexpr, APPEND: tl.constexpr, SPLIT: tl.constexpr,
    HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # columns are the fast axis of the grid: neighbours share rows, and the last rows read are still in the
    # cache
    rows = (tl.num_programs(1) - 1 - tl.program_id(1)) * BM + tl.arange(0, BM)
    inside = rows < M
    k = tl.program_id(0) * BK + tl.arange(0, BK)
    at = rows.to(tl.int64)[:, None] * x_stride + k[None, :]
    x = tl.load(x_ptr + at, mask=inside[:, None] & (k < K)[None, :], other=0.0)
    peak = tl.zeros((BM,), tl.int32)
    for split in tl.static_range(SPLIT):
        peak = tl.maximum(peak, tl.load(peak_ptr + split * M + rows, mask=inside, other=0))
    unit = tl.div_rn(peak.to(tl.float32, bitcast=True), tl.full((BM,), TOP, tl.float32))
    if KIND == 1:
        unit = tl.div_rn(unit, tl.full((BM,), FINE_TOP, tl.float32))
    if KIND == 2:
        unit = unit * (1.0 / (1 << FINE_TOP))
    unit = tl.where(unit < 1.1754943508222875e-38, 1.0, unit)  # a row of zeros; NaN stays
    inverse = tl.div_rn(tl.full((BM,), 1.0, tl.float32), unit)
    lift = tl.zeros((BM,), tl.int32)
    ranks = tl.arange(0, RANK)
    if APPEND or tl.program_id(0) == 0:
        low = tl.zeros((BM, RANK), tl.float32)
        for split in tl.static_range(SPLIT):
            low += tl.load(
                low_ptr + (split * M + rows)[:, None] * RANK + ranks[None, :], mask=inside[:, None], other=0.0
            )
        code_rows = code_ptr + rows.to(tl.int64)[:, None] * code_stride
        if APPEND:
            low = low * inverse[:, None]
            most = tl.max(magnitude(low), 1).to(tl.float32, bitcast=True) * (1.0 / 448.0)
            lift = ((most.to(tl.int32, bitcast=True) + 0x7FFFFF) >> 23) - 127
            lift = tl.minimum(tl.maximum(lift, 0), 64)
            if tl.program_id(0) == 0:
                high, rest = two_e4m3(low * power(-lift)[:, None])
                columns = code_rows + K_PAD + ranks[None, :]
                tl.store(columns, high, mask=inside[:, None])
                tl.store(columns + RANK, high, mask=inside[:, None])
                tl.store(columns + 2 * RANK, rest, mask=inside[:, None])
                tl.store(columns + 3 * RANK, rest, mask=inside[:, None])
        else:
            branch = out_ptr + rows.to(tl.int64)[:, None] * RANK + ranks[None, :]
            tl.store(branch, low.to(out_ptr.dtype.element_ty), mask=inside[:, None])
    if tl.program_id(0) == 0:
        tl.store(scale_ptr + rows, unit * power(lift), mask=inside)
    y = x.to(tl.float32)
    if HAS_SHIFT:
        y = tl.where((k < K)[None, :], y + shift, 0.0)
    if HAS_SMOOTH:
        factor = k[None, :] + tl.zeros((BM, BK), tl.int32)
        y = y * tl.load(inverse_ptr + factor, mask=factor < K, other=0.0)
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
    """Down-projected rows and the bits of their largest values, by split: (S, M, R) and (S, M)."""
    (m, k), rank = x.shape, down.shape[0]
    steps = triton.cdiv(k, config.block_k)
    per_split = triton.cdiv(steps, min(config.split, steps))
    splits = triton.cdiv(steps, per_split)
    low = torch.empty(splits, m, rank, dtype=torch.float32, device=x.device)
    peak = torch.empty(splits, m, dtype=torch.int32, device=x.device)
    allow_descriptors()
    _project[(triton.cdiv(m, config.block_m), splits)](
        x, x if inverse is None else inverse, down, low, peak, m, k, x.stride(0), shift, per_split,
        RANK=rank, HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0, BM=config.block_m, BK=config.block_k,
        WIDE=paths.INTERPRETED or x.element_size() == 4, num_warps=config.warps, num_stages=config.stages,
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
    _encode[(triton.cdiv(padded, block_k), triton.cdiv(m, config.block_m))](
        x, x if inverse is None else inverse, low, peak, codes, scale, x if out is None else out,
        m, k, padded, x.stride(0), codes.stride(0), shift,
        KIND=KINDS[kind], TOP=float(top), LEAST=float(least), FINE_TOP=fine_top, GROUP=group,
        RANK=low.shape[2], APPEND=out is None, SPLIT=low.shape[0],
        HAS_SMOOTH=inverse is not None, HAS_SHIFT=shift != 0, BM=config.block_m, BK=block_k,
        WIDE=paths.INTERPRETED or x.element_size() == 4, num_warps=config.warps,
    )  # fmt: skip
