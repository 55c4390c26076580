"""Triton kernels of `quantize` for many rows and a branch: columns of a row are shared among programs.

A row's unit is known when all of the row was read, so its codes come from a second look at the input. A first
launch looks at all items, blocks of rows by shares of the columns, and the last program of a block of rows
adds up what was found of each row, in order; a second one writes the codes.

One launch was no faster in three forms (benchmarks/kernels/NOTES.md, runs 5 to 7): with tiles read twice one
after the other, with a second look that follows the first in the cache, with tiles held in registers.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.rows.before import BEFORE, Before
from kernels.rows.look_kernels import completed, looked, written
from kernels.rows.quantize_kernels import KINDS
from kernels.tuned.configs import Config
from kernels.tuned.launching import counters

NOTHING = Before()
EACH = ("none", "gelu", "gelu_tanh", "silu", "geglu")
"""What may come before: it is found again at the second look."""
SHARED = 200_000
"""Bytes that the steps in flight may take; a multiprocessor of Hopper has 232,448."""
PIECE = 32
"""Rows that are added up at once."""
FOUR_WARPS = 4096
"""Values of a tile of codes up to which four warps write it."""


@triton.jit
def _look(
    x_ptr, smooth_ptr, down_ptr, low_ptr, peak_ptr, inverse_ptr, lift_ptr, code_ptr, scale_ptr,
    out_ptr, balance_ptr, count_ptr, M, K, K_PAD, x_stride, code_stride, shift, share,
    KIND: tl.constexpr, TOP: tl.constexpr, FINE_TOP: tl.constexpr, RANK: tl.constexpr, APPEND: tl.constexpr,
    BALANCED: tl.constexpr, HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, FIRST: tl.constexpr,
    SPLIT: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PIECE: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    split = tl.program_id(1)
    row0 = block * BM
    looked(
        x_ptr, down_ptr, smooth_ptr, low_ptr, peak_ptr, row0, split * share,
        min((split + 1) * share, K), split, M, K, x_stride, shift, RANK,
        HAS_SMOOTH, HAS_SHIFT, FIRST, BM, BK, EVEN, WIDE,
    )  # fmt: skip
    tl.debug_barrier()  # all threads have stored before one of them counts
    if tl.atomic_add(count_ptr + block, 1, sem="acq_rel") == SPLIT - 1:
        # the last program of a block adds up what all found, in order
        for piece in range(BM // PIECE):
            completed(
                low_ptr, peak_ptr, code_ptr, scale_ptr, inverse_ptr, lift_ptr, out_ptr, balance_ptr,
                row0 + piece * PIECE, M, K_PAD, code_stride, KIND, TOP, FINE_TOP, RANK, APPEND, BALANCED,
                SPLIT, PIECE,
            )  # fmt: skip
        tl.store(count_ptr + block, 0)


@triton.jit
def _write(
    x_ptr, smooth_ptr, inverse_ptr, lift_ptr, code_ptr, M, K, K_PAD, x_stride, code_stride, shift,
    KIND: tl.constexpr, TOP: tl.constexpr, LEAST: tl.constexpr, FINE_TOP: tl.constexpr, GROUP: tl.constexpr,
    HAS_SMOOTH: tl.constexpr, HAS_SHIFT: tl.constexpr, FIRST: tl.constexpr, BM: tl.constexpr,
    BK: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # columns are the fast axis: neighbours share rows; the rows read last are still in the cache. One axis of
    # the grid for both, as the others end at 65535
    tiles = tl.cdiv(K_PAD, BK)
    row0 = (tl.cdiv(M, BM) - 1 - tl.program_id(0) // tiles) * BM
    column0 = tl.program_id(0) % tiles * BK
    written(
        x_ptr, smooth_ptr, inverse_ptr, lift_ptr, code_ptr, row0, column0,
        min(column0 + BK, K_PAD), M, K, K_PAD, x_stride, code_stride, shift, KIND,
        TOP, LEAST, FINE_TOP, GROUP, HAS_SMOOTH, HAS_SHIFT,
        FIRST, BM, BK, EVEN, WIDE,
    )  # fmt: skip


def fits(x: Tensor, down: Tensor, before: Before) -> bool:
    """Whether rows can be read sixteen bytes at a time, and what comes before needs no whole row."""
    if before.kind not in EACH:
        return False
    bytes_ = x.element_size()
    return (
        x.stride(0) * bytes_ % 16 == 0 and x.shape[1] * bytes_ % 16 == 0 and x.data_ptr() % 16 == 0
        and down.data_ptr() % 16 == 0
    )  # fmt: skip


def steps_ahead(config: Config, rank: int, step: int, bytes_: int, tiles: int = 1) -> int:
    """Count the steps in flight that fit the shared memory.

    A table was measured at two bytes a number, groups of 64 and ranks of 32: what is larger gets fewer, and
    so do two `tiles` of rows a step, values and gates.
    """
    return max(1, min(config.stages, SHARED // ((tiles * config.block_m + rank) * step * bytes_)))


def quantize_many(
    x: Tensor, inverse: Tensor | None, down: Tensor, codes: Tensor, scale: Tensor, out: Tensor | None,
    balance: Tensor | None, kind: str, limits: tuple[int, int, int], group: int, shift: float, k: int,
    padded: int, config: Config, before: Before = NOTHING,
) -> None:  # fmt: skip
    """Write codes, scales and (where it is not appended) the branch.

    Of a config: `block_m` rows and `block_k` columns of a step of the first look; `split` items a block of
    rows; `group_m` rows by `block_n` columns of a tile of codes.
    """
    m, rank = x.shape[0], down.shape[0]
    step = max(config.block_k, group)
    share = triton.cdiv(triton.cdiv(padded, config.split), step) * step
    split, blocks = triton.cdiv(padded, share), triton.cdiv(m, config.block_m)
    low = torch.empty(split, m, rank, dtype=torch.float32, device=x.device)
    peak, lift = (torch.empty(n, m, dtype=torch.int32, device=x.device) for n in (split, 1))
    inverse_unit = torch.empty(m, dtype=torch.float32, device=x.device)
    smooth, branch = x if inverse is None else inverse, x if out is None else out
    powers = scale if balance is None else balance
    dressed = {"HAS_SMOOTH": inverse is not None, "HAS_SHIFT": shift != 0, "FIRST": BEFORE[before.kind],
               "WIDE": paths.INTERPRETED or x.element_size() == 4}  # fmt: skip
    unit: dict[str, Any] = {"KIND": KINDS[kind], "TOP": float(limits[0]), "FINE_TOP": limits[2]}
    sums = {"RANK": rank, "APPEND": out is None, "BALANCED": balance is not None, "SPLIT": split}
    least = {"LEAST": float(limits[1]), "GROUP": group}
    tiles = 2 if before.kind == "geglu" else 1
    look = {"BM": config.block_m, "BK": step, "EVEN": k % step == 0, "num_warps": config.warps,
            "num_stages": steps_ahead(config, rank, step, x.element_size(), tiles)}  # fmt: skip
    _look[(blocks, split)](
        x, smooth, down, low, peak, inverse_unit, lift, codes, scale, branch, powers,
        counters(x.device, blocks), m, k, padded, x.stride(0), codes.stride(0), shift, share,
        PIECE=min(PIECE, config.block_m), **unit, **sums, **dressed, **look,
    )  # fmt: skip
    broad = min(max(config.block_n, group), triton.next_power_of_2(max(padded, group)))
    _write[(triton.cdiv(padded, broad) * triton.cdiv(m, config.group_m),)](
        x, smooth, inverse_unit, lift, codes, m, k, padded, x.stride(0), codes.stride(0), shift,
        **unit, **least, **dressed, BM=config.group_m, BK=broad, EVEN=k % broad == 0,
        num_warps=4 if config.group_m * broad <= FOUR_WARPS else 8,
    )  # fmt: skip
