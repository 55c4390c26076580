"""Gluon kernel of `gemm` for int8 on Hopper: the product of a step is queued before the one before has ended.

Triton's compiler waits for every product whose sums are not float32 (its WGMMA pipeline, "rule 2.1"), and
cuts tiles of int8 to 128 columns. So tensor cores rest between the steps of an int8 sum, as they do not in
float8's. Here the loop is written out: a step's product starts, then the one before is awaited, and its tiles
are filled again.

Programs walk the tiles of the output as those of `kernels.products.gemm_kernels` do, and loads run ahead from
one tile into the next.
"""

from __future__ import annotations

import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from kernels.tuned.configs import Config
from kernels.tuned.launching import allow_descriptors, multiprocessors

WIDEST: gl.constexpr = gl.constexpr(128)
"""Columns of the widest int8 product that Triton's compiler writes."""


@gluon.jit
def _corner(tile, tiles_m, tiles_n, BM: gl.constexpr, BN: gl.constexpr, GROUP_M: gl.constexpr):
    """First row and column of a tile, in groups of `GROUP_M` tile rows."""
    group = tile // (GROUP_M * tiles_n)
    first = group * GROUP_M
    height = min(tiles_m - first, GROUP_M)
    inside = tile % (GROUP_M * tiles_n)
    return (first + inside % height) * BM, (inside // height) * BN


@gluon.jit
def _fetch(a_desc, b_desc, a_tiles, b_tiles, full, step, row0, column0, k0, going, STAGES: gl.constexpr):
    """Let the copy engine fill the tiles of a step."""
    place = step % STAGES
    barrier = full.index(place)
    mbarrier.expect(barrier, a_desc.block_type.nbytes + b_desc.block_type.nbytes, pred=going)
    tma.async_copy_global_to_shared(a_desc, [row0, k0], barrier, a_tiles.index(place), pred=going)
    tma.async_copy_global_to_shared(b_desc, [column0, k0], barrier, b_tiles.index(place), pred=going)


@gluon.jit
def _gemm_queued(
    a_ptr, b_ptr, out_ptr, low_ptr, up_ptr, row_ptr, column_ptr, bias_ptr, residual_ptr, M, N, K, a_stride,
    b_stride, out_stride, residual_stride,
    BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, STAGES: gl.constexpr, GROUP_M: gl.constexpr,
    PROGRAMS: gl.constexpr, RANK: gl.constexpr, HAS_BIAS: gl.constexpr, HAS_RESIDUAL: gl.constexpr,
    num_warps: gl.constexpr,
):  # fmt: skip
    a_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BM, BK], gl.int8)
    b_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BN, BK], gl.int8)
    out_type: gl.constexpr = out_ptr.dtype.element_ty
    out_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BM, BN], out_type)
    sums: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, min(BN, WIDEST), 32])
    line: gl.constexpr = gl.BlockedLayout([1], [32], [num_warps], [0])
    a_desc = tma.make_tensor_descriptor(a_ptr, [M, K], [a_stride, 1], [BM, BK], a_layout)
    b_desc = tma.make_tensor_descriptor(b_ptr, [N, K], [b_stride, 1], [BN, BK], b_layout)
    out_desc = tma.make_tensor_descriptor(out_ptr, [M, N], [out_stride, 1], [BM, BN], out_layout)
    a_tiles = gl.allocate_shared_memory(gl.int8, [STAGES, BM, BK], a_layout)
    b_tiles = gl.allocate_shared_memory(gl.int8, [STAGES, BN, BK], b_layout)
    out_tile = gl.allocate_shared_memory(out_type, [BM, BN], out_layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
    if RANK > 0:
        half: gl.constexpr = low_ptr.dtype.element_ty
        low_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BM, RANK], half)
        up_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([BN, RANK], half)
        low_desc = tma.make_tensor_descriptor(low_ptr, [M, RANK], [RANK, 1], [BM, RANK], low_layout)
        up_desc = tma.make_tensor_descriptor(up_ptr, [N, RANK], [RANK, 1], [BN, RANK], up_layout)
        low_tile = gl.allocate_shared_memory(half, [1, BM, RANK], low_layout)
        up_tile = gl.allocate_shared_memory(half, [1, BN, RANK], up_layout)
        branch = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
        mbarrier.init(branch.index(0), count=1)
    fence_async_shared()

    tiles_m = gl.cdiv(M, BM)
    tiles_n = gl.cdiv(N, BN)
    tiles = tiles_m * tiles_n
    depth = gl.cdiv(K, BK)
    # what is fetched next: its tile, its step within the tile, and in all
    to_tile = gl.program_id(0)
    to_row, to_column = _corner(to_tile, tiles_m, tiles_n, BM, BN, GROUP_M)
    to_step = 0
    for ahead in gl.static_range(STAGES - 1):
        _fetch(
            a_desc, b_desc, a_tiles, b_tiles, full, ahead, to_row, to_column, to_step * BK, to_tile < tiles,
            STAGES,
        )  # fmt: skip
        to_step += 1
        if to_step == depth:
            to_step = 0
            to_tile += PROGRAMS
            to_row, to_column = _corner(to_tile, tiles_m, tiles_n, BM, BN, GROUP_M)
    step = 0
    turn = 0
    for tile in range(gl.program_id(0), tiles, PROGRAMS):
        row0, column0 = _corner(tile, tiles_m, tiles_n, BM, BN, GROUP_M)
        if RANK > 0:  # comes while the sum is made
            _fetch(low_desc, up_desc, low_tile, up_tile, branch, 0, row0, column0, 0, True, 1)
        total = gl.zeros((BM, BN), gl.int32, sums)
        for inner in range(depth):
            place = step % STAGES
            mbarrier.wait(full.index(place), (step // STAGES) & 1)
            a = a_tiles.index(place)
            b = b_tiles.index(place)
            total = warpgroup_mma(a, b.permute((1, 0)), total, use_acc=inner > 0, is_async=True)
            # the product before this one has ended, and its tiles are free
            total = warpgroup_mma_wait(1, deps=(total,))
            _fetch(
                a_desc, b_desc, a_tiles, b_tiles, full, step + STAGES - 1, to_row, to_column, to_step * BK,
                to_tile < tiles, STAGES,
            )  # fmt: skip
            step += 1
            to_step += 1
            if to_step == depth:
                to_step = 0
                to_tile += PROGRAMS
                to_row, to_column = _corner(to_tile, tiles_m, tiles_n, BM, BN, GROUP_M)
        rows = row0 + gl.arange(0, BM, gl.SliceLayout(1, sums))
        columns = column0 + gl.arange(0, BN, line)
        row_scale = gl.load(row_ptr + rows, mask=rows < M, other=0.0)
        column_scale = gl.load(column_ptr + columns, mask=columns < N, other=0.0)
        column_scale = gl.convert_layout(column_scale, gl.SliceLayout(0, sums))
        if HAS_BIAS:
            bias = gl.load(bias_ptr + columns, mask=columns < N, other=0.0)
            bias = gl.convert_layout(bias, gl.SliceLayout(0, sums)).to(gl.float32)
        total = warpgroup_mma_wait(0, deps=(total,))
        out = total.to(gl.float32) * row_scale[:, None] * column_scale[None, :]
        if HAS_BIAS:
            out += bias[None, :]
        if RANK > 0:
            mbarrier.wait(branch.index(0), turn & 1)
            wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, min(BN, WIDEST), 16])
            out = gl.convert_layout(out, wide)
            out = warpgroup_mma(low_tile.index(0), up_tile.index(0).permute((1, 0)), out)
            turn += 1
        else:
            wide: gl.constexpr = sums
        if HAS_RESIDUAL:
            rows = row0 + gl.arange(0, BM, gl.SliceLayout(1, wide))
            beside = column0 + gl.arange(0, BN, gl.SliceLayout(0, wide))
            at = residual_ptr + rows.to(gl.int64)[:, None] * residual_stride + beside[None, :]
            out += gl.load(at, mask=(rows < M)[:, None] & (beside < N)[None, :], other=0.0).to(gl.float32)
        tma.store_wait(0)
        out_tile.store(out.to(out_type))
        fence_async_shared()
        tma.async_copy_shared_to_global(out_desc, [row0, column0], out_tile)
    tma.store_wait(0)


def launch(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None, out: Tensor, residual: Tensor | None, config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `out`, in tiles that fit; see `kernels.products.gemm`."""
    (m, k), n = a.shape, b.shape[0]
    rank = 0 if low is None else low.shape[1]
    tiles = triton.cdiv(m, config.block_m) * triton.cdiv(n, config.block_n)
    programs = multiprocessors(a.device)
    allow_descriptors()
    _gemm_queued[(min(programs, tiles),)](
        a, b, out, out if low is None else low, out if up is None else up, row_scale, column_scale,
        row_scale if bias is None else bias, out if residual is None else residual, m, n, k, a.stride(0),
        b.stride(0), out.stride(0), 0 if residual is None else residual.stride(0),
        BM=config.block_m, BN=config.block_n, BK=config.block_k, STAGES=config.stages, GROUP_M=config.group_m,
        PROGRAMS=programs, RANK=rank, HAS_BIAS=bias is not None, HAS_RESIDUAL=residual is not None,
        num_warps=config.warps,
    )  # fmt: skip
