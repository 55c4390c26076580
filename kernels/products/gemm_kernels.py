"""Triton kernel of `gemm`: persistent, 8-bit tensor cores, tiles moved by the tensor copy engine.

One program a multiprocessor walks the tiles of the output in groups of `GROUP_M` tile rows, so that the
operands of neighbouring tiles are still in the cache. Tiles may be fetched by warps of their own, which run
ahead while the others finish a tile. Where a stride is not a multiple of 16 bytes (a rule of
the copy engine) tiles are loaded through pointers with masks instead.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.rows.before import BEFORE
from kernels.rows.before_kernels import gelu
from kernels.rows.code_kernels import rounded
from kernels.tuned.configs import Config
from kernels.tuned.dots import ahead, half_dot, on_e4m3_grid
from kernels.tuned.launching import allow_descriptors, multiprocessors, shared_memory, within
from kernels.tuned.table import triton_version

HOPPER = 9
"""Major compute capability of the only GPUs whose products can be queued."""
WARP_ROWS = 16
"""Rows of a tile that a warp makes in a queued product."""
GLUON = ("3.6.", "3.7.")
"""Versions of Triton whose Gluon, which still changes, builds what queues them."""


@triton.jit
def _pointer_tile(base, stride, row0, k0, ROWS, K, BLOCK: tl.constexpr, BK: tl.constexpr):
    rows = row0 + tl.arange(0, BLOCK)
    k = k0 + tl.arange(0, BK)
    mask = (rows[:, None] < ROWS) & (k[None, :] < K)
    return tl.load(base + rows.to(tl.int64)[:, None] * stride + k[None, :], mask=mask, other=0.0)


@triton.jit
def _columns(column_ptr, bias_ptr, columns, N, HAS_BIAS: tl.constexpr):
    inside = columns < N
    column_scale = tl.load(column_ptr + columns, mask=inside, other=0.0)
    if HAS_BIAS:
        return column_scale, tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    else:
        return column_scale, column_scale


@triton.jit
def _scaled(
    total, row_scale, column_scale, bias, low, up, HAS_BIAS: tl.constexpr, RANK: tl.constexpr,
    WIDE: tl.constexpr
):  # fmt: skip
    out = total.to(tl.float32) * row_scale[:, None] * column_scale[None, :]
    if HAS_BIAS:
        out += bias[None, :]
    if RANK > 0:
        out = half_dot(low, up.T, out, WIDE)
    return out


@triton.jit
def _ended(
    out, rows, columns, M, N, residual_ptr, residual_stride, steps_ptr, ACTIVATION: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, HAS_STEPS: tl.constexpr, WHOLE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Activation, residual, and codes of the next layer."""
    if ACTIVATION == 1:
        out = gelu(out, False)
    elif ACTIVATION == 2:
        out = gelu(out, True)
    elif ACTIVATION == 3:
        out = out * tl.sigmoid(out)
    if HAS_RESIDUAL:
        at = residual_ptr + rows.to(tl.int64)[:, None] * residual_stride + columns[None, :]
        mask = (rows < M)[:, None] & (columns < N)[None, :]
        out += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    if HAS_STEPS:
        step = tl.load(steps_ptr + rows, mask=rows < M, other=1.0)
        top = 127.0 if WHOLE else 448.0
        steps = tl.div_rn(out, step[:, None] + tl.zeros(out.shape, tl.float32))
        code = tl.minimum(tl.maximum(steps, -top), top)
        if WHOLE:
            return tl.where(steps == steps, rounded(code), 0.0)
        else:
            code = tl.where(steps == steps, code, steps)  # a NaN stays one
            return on_e4m3_grid(code) if WIDE else code
    return out


@triton.jit
def _stored(
    out_ptr,
    out_desc,
    value,
    row0,
    column0,
    M,
    N,
    stride,
    BM: tl.constexpr,
    BN: tl.constexpr,
    COPY_OUT: tl.constexpr,
):
    value = value.to(out_ptr.dtype.element_ty)
    if COPY_OUT:
        out_desc.store([row0, column0], value)
    else:
        rows = row0 + tl.arange(0, BM)
        columns = column0 + tl.arange(0, BN)
        mask = (rows[:, None] < M) & (columns[None, :] < N)
        tl.store(out_ptr + rows.to(tl.int64)[:, None] * stride + columns[None, :], value, mask=mask)


@triton.jit
def _gemm(
    a_ptr, b_ptr, out_ptr, low_ptr, up_ptr, row_ptr, column_ptr, bias_ptr, residual_ptr, steps_ptr,
    M, N, K, a_stride, b_stride, out_stride, residual_stride,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP_M: tl.constexpr, PROGRAMS: tl.constexpr,
    HALVES: tl.constexpr, RANK: tl.constexpr, HAS_BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, HAS_RESIDUAL: tl.constexpr, HAS_STEPS: tl.constexpr,
    COPY_IN: tl.constexpr, COPY_OUT: tl.constexpr, EARLY: tl.constexpr, SPECIAL: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = BN // HALVES
    whole: tl.constexpr = a_ptr.dtype.element_ty == tl.int8
    sum_type: tl.constexpr = tl.int32 if whole else tl.float32
    ints: tl.constexpr = out_ptr.dtype.element_ty == tl.int8
    if COPY_IN:
        a_desc = tl.make_tensor_descriptor(a_ptr, [M, K], [a_stride, 1], [BM, BK])
        b_desc = tl.make_tensor_descriptor(b_ptr, [N, K], [b_stride, 1], [BN, BK])
    if COPY_OUT:
        out_desc = tl.make_tensor_descriptor(out_ptr, [M, N], [out_stride, 1], [BM, WIDTH])
    else:
        out_desc = out_ptr
    if RANK > 0:
        low_desc = tl.make_tensor_descriptor(low_ptr, [M, RANK], [RANK, 1], [BM, RANK])
        up_desc = tl.make_tensor_descriptor(up_ptr, [N, RANK], [RANK, 1], [WIDTH, RANK])
    tiles_m = tl.cdiv(M, BM)
    tiles_n = tl.cdiv(N, BN)
    for tile in tl.range(
        tl.program_id(0), tiles_m * tiles_n, PROGRAMS, flatten=not SPECIAL, warp_specialize=SPECIAL
    ):
        group = tile // (GROUP_M * tiles_n)
        first = group * GROUP_M
        height = min(tiles_m - first, GROUP_M)
        inside = tile % (GROUP_M * tiles_n)
        row0 = (first + inside % height) * BM
        column0 = (inside // height) * BN
        rows = row0 + tl.arange(0, BM)
        columns = column0 + tl.arange(0, BN)
        if EARLY:  # the scales come to the nearest cache while the sum is made
            ahead(row_ptr, row0, M, BM)
            ahead(column_ptr, column0, N, BN)
            if HAS_BIAS:
                ahead(bias_ptr, column0, N, BN)
        total = tl.zeros((BM, BN), sum_type)
        for step in range(tl.cdiv(K, BK)):
            if COPY_IN:
                a = a_desc.load([row0, step * BK])
                b = b_desc.load([column0, step * BK])
            else:
                a = _pointer_tile(a_ptr, a_stride, row0, step * BK, M, K, BM, BK)
                b = _pointer_tile(b_ptr, b_stride, column0, step * BK, N, K, BN, BK)
            total = tl.dot(a, b.T, total, out_dtype=sum_type)
        row_scale = tl.load(row_ptr + rows, mask=rows < M, other=0.0)
        low = total
        up = total
        if RANK > 0:
            low = low_desc.load([row0, 0])
            up = up_desc.load([column0, 0])
        if HALVES == 1:
            column_scale, bias = _columns(column_ptr, bias_ptr, columns, N, HAS_BIAS)
            out = _scaled(total, row_scale, column_scale, bias, low, up, HAS_BIAS, RANK, WIDE)
            out = _ended(
                out, rows, columns, M, N, residual_ptr, residual_stride, steps_ptr, ACTIVATION, HAS_RESIDUAL,
                HAS_STEPS, ints, WIDE,
            )  # fmt: skip
            _stored(out_ptr, out_desc, out, row0, column0, M, N, out_stride, BM, BN, COPY_OUT)
        else:
            left, right = tl.split(tl.permute(tl.reshape(total, (BM, 2, WIDTH)), (0, 2, 1)))
            half = column0 + tl.arange(0, WIDTH)
            half_scale, half_bias = _columns(column_ptr, bias_ptr, half, N, HAS_BIAS)
            out = _scaled(left, row_scale, half_scale, half_bias, low, up, HAS_BIAS, RANK, WIDE)
            out = _ended(
                out, rows, half, M, N, residual_ptr, residual_stride, steps_ptr, ACTIVATION, HAS_RESIDUAL,
                HAS_STEPS, ints, WIDE,
            )  # fmt: skip
            _stored(out_ptr, out_desc, out, row0, column0, M, N, out_stride, BM, WIDTH, COPY_OUT)
            if RANK > 0:
                up = up_desc.load([column0 + WIDTH, 0])
            half_scale, half_bias = _columns(column_ptr, bias_ptr, half + WIDTH, N, HAS_BIAS)
            out = _scaled(right, row_scale, half_scale, half_bias, low, up, HAS_BIAS, RANK, WIDE)
            out = _ended(
                out, rows, half + WIDTH, M, N, residual_ptr, residual_stride, steps_ptr, ACTIVATION,
                HAS_RESIDUAL, HAS_STEPS, ints, WIDE,
            )  # fmt: skip
            _stored(out_ptr, out_desc, out, row0, column0 + WIDTH, M, N, out_stride, BM, WIDTH, COPY_OUT)


def launch(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None, out: Tensor, activation: str, residual: Tensor | None,
    steps: Tensor | None, config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `out`; see `kernels.products.gemm`. Arguments are checked there."""
    (m, k), n = a.shape, b.shape[0]
    rank = 0 if low is None else low.shape[1]
    apart = all(t.stride(0) % 16 == 0 and t.stride(0) >= k for t in (a, b))  # not a row that stands for all
    copy_in = apart and aligned(a, b)
    copy_out = out.stride(0) * out.element_size() % 16 == 0 and aligned(out)
    plain = activation == "none" and steps is None
    if copy_in and copy_out and plain and queues(a, out, config):
        fitted = queued_tiles(config, out.element_size(), shared_memory(a.device), rank)
        if fitted is not None:
            from kernels.products.gemm_queued_kernels import launch as launch_queued

            launch_queued(a, row_scale, b, column_scale, bias, low, up, out, residual, fitted)
            return
    config = config.unqueued()
    held = out.element_size() + (0 if residual is None else residual.element_size())
    config = within(config, held, shared_memory(a.device), rank)
    tiles = triton.cdiv(m, config.block_m) * triton.cdiv(n, config.block_n)
    programs = multiprocessors(a.device)
    if copy_in or copy_out or rank:
        allow_descriptors()
    _gemm[(min(programs, tiles),)](
        a, b, out, a if low is None else low, a if up is None else up,
        row_scale, column_scale, row_scale if bias is None else bias, out if residual is None else residual,
        row_scale if steps is None else steps, m, n, k, a.stride(0), b.stride(0), out.stride(0),
        0 if residual is None else residual.stride(0),
        BM=config.block_m, BN=config.block_n, BK=config.block_k, GROUP_M=config.group_m, PROGRAMS=programs,
        HALVES=config.halves, RANK=rank, HAS_BIAS=bias is not None,
        ACTIVATION=BEFORE[activation], HAS_RESIDUAL=residual is not None, HAS_STEPS=steps is not None,
        COPY_IN=copy_in, COPY_OUT=copy_out, EARLY=config.early and not paths.INTERPRETED,
        SPECIAL=config.special and copy_in,
        WIDE=paths.INTERPRETED,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def queues(a: Tensor, out: Tensor, config: Config) -> bool:
    """Whether `kernels.products.gemm_queued_kernels` runs a product, which makes the same numbers.

    It has what the copy engine can reach and no activation or codes to finish with.
    """
    fits = a.dtype == torch.int8 and out.element_size() == 2 and a.shape[1] > 0
    known = triton_version().startswith(GLUON)
    return config.queued and fits and known and a.is_cuda and paths.capability(a.device)[0] == HOPPER


def queued_tiles(config: Config, size: int, limit: int, rank: int) -> Config | None:
    """Tiles of a queued product that fit the shared memory; None where none has rows for all warps.

    A warp makes `WARP_ROWS` rows of a tile. Wide branches leave no room for as many.
    """
    found = within(config, size, limit, rank, halving=False)
    return found if found.block_m >= WARP_ROWS * found.warps else None


def aligned(*tensors: Tensor) -> bool:
    """Whether the copy engine can reach these tensors: their first bytes lie on a multiple of 16."""
    return all(tensor.data_ptr() % 16 == 0 for tensor in tensors)
