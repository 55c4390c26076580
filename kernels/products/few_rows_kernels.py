"""Triton kernel of `few_rows`: the weight streams through the tensor cores as their first operand.

With a handful of rows the time is that of reading the weight, so codes go from memory to registers once and
the input is the small side. Bytes hold an even and an odd column; each half is multiplied by the matching
columns of the input, so that no shuffle puts them in order. Group scales meet the finished sum of their
group: that is `BN` by rows products for `BN` by group codes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.products.few_rows_scaled_kernels import (
    KINDS,
    few_rows_scaled,
    finished,
    halves,
    offset_of,
    pairs,
)
from kernels.tuned.configs import Config
from kernels.tuned.dots import half_dot
from kernels.tuned.launching import counters

LEAST_ROWS = 8
"""Rows of the narrowest product of tensor cores."""


@triton.jit
def _few_rows(
    x_ptr, packed_ptr, scale_ptr, column_ptr, bias_ptr, out_ptr, part_ptr, count_ptr, M, N, K, row_bytes,
    groups, x_stride, per_split,
    GROUP: tl.constexpr, POW2: tl.constexpr, HAS_COLUMN: tl.constexpr, HAS_BIAS: tl.constexpr,
    SPLIT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, AT_ONCE: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = GROUP // 2
    BF16: tl.constexpr = x_ptr.dtype.element_ty == tl.bfloat16
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    rows = tl.program_id(1) * BM + tl.arange(0, BM)
    inside_n = columns < N
    inside_m = rows < M
    j = tl.arange(0, HALF)
    bytes_ptr = packed_ptr + columns.to(tl.int64)[:, None] * row_bytes + j[None, :]
    words_ptr = (
        x_ptr.to(tl.pointer_type(tl.int32)) + rows.to(tl.int64)[None, :] * (x_stride // 2) + j[:, None]
    )
    one = tl.full((BN, HALF), 1.0, tl.float32 if WIDE else x_ptr.dtype.element_ty)
    total = tl.zeros((BN, BM), tl.float32)
    first = tl.program_id(2) * per_split
    for start in range(first, min(first + per_split, groups), AT_ONCE):
        for extra in tl.static_range(AT_ONCE):
            group = start + extra
            if EVEN:
                byte = tl.load(bytes_ptr + group * HALF)
                word = tl.load(words_ptr + group * HALF, mask=inside_m[None, :], other=0)
                even, odd = pairs(word, BF16)
                scale = tl.load(scale_ptr + columns * groups + group)
            else:
                at = group * HALF + j
                k = group * GROUP + 2 * j
                mine = group < min(first + per_split, groups)
                byte_mask = inside_n[:, None] & (at < row_bytes)[None, :]
                byte = tl.load(bytes_ptr + group * HALF, mask=byte_mask, other=0)
                x_rows = x_ptr + rows.to(tl.int64)[None, :] * x_stride
                even = tl.load(
                    x_rows + k[:, None], mask=inside_m[None, :] & (mine & (k < K))[:, None], other=0.0
                )
                odd = tl.load(
                    x_rows + k[:, None] + 1, mask=inside_m[None, :] & (mine & (k + 1 < K))[:, None], other=0.0
                )
                scale = tl.load(scale_ptr + columns * groups + group, mask=inside_n & mine, other=0)
            low, high = halves(byte, one, offset_of(one, BF16), BF16, WIDE)
            part = half_dot(low, even, tl.zeros((BN, BM), tl.float32), WIDE)
            part = half_dot(high, odd, part, WIDE)
            if POW2:
                total += part * ((scale.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)[:, None]
            else:
                total += part * scale.to(tl.float32)[:, None]
    if HAS_COLUMN:
        total *= tl.load(column_ptr + columns, mask=inside_n, other=0.0).to(tl.float32)[:, None]
    mask = inside_n[:, None] & inside_m[None, :]
    finished(total, part_ptr, count_ptr, bias_ptr, out_ptr, columns, rows, mask, M, N, HAS_BIAS, SPLIT)


def launch(
    x: Tensor, packed: Tensor, scale: Tensor, column: Tensor | None, bias: Tensor | None, out: Tensor,
    group: int,
    config: Config,
) -> None:  # fmt: skip
    """Run the kernel into `out`; see `kernels.products.few_rows`."""
    (m, k), (n, row_bytes), groups = x.shape, packed.shape, scale.shape[1]
    at_once = max(1, min(config.block_k // group, groups))
    per_split = triton.cdiv(triton.cdiv(groups, config.split), at_once) * at_once
    split = triton.cdiv(groups, per_split)
    words = x.element_size() == 2 and x.stride(0) % 2 == 0 and x.data_ptr() % 16 == 0
    even = words and k % group == 0 and n % config.block_n == 0 and groups % per_split % at_once == 0
    per_word = 4 // scale.element_size()
    by_words = at_once % per_word == 0 and groups % at_once == 0 and scale.data_ptr() % 4 == 0
    scaled = config.keep and even and by_words and at_once & (at_once - 1) == 0
    block_m = LEAST_ROWS if scaled and m <= LEAST_ROWS else config.block_m
    grid = (triton.cdiv(n, config.block_n), triton.cdiv(m, block_m), split)
    # one launch: what programs found of a shared tile, and how many of them have arrived
    part = torch.empty(split if split > 1 else 0, m, n, dtype=torch.float32, device=x.device)
    count = counters(x.device, grid[0] * grid[1] if split > 1 else 0)
    tensors = (
        x, packed, scale, scale if column is None else column, scale if bias is None else bias, out, part,
        count,
    )  # fmt: skip
    shared = {
        "GROUP": group, "HAS_COLUMN": column is not None,
        "HAS_BIAS": bias is not None, "SPLIT": split, "BM": block_m, "BN": config.block_n,
        "AT_ONCE": at_once, "WIDE": paths.INTERPRETED or x.element_size() == 4, "num_warps": config.warps,
        "num_stages": config.stages,
    }  # fmt: skip
    if scaled:
        few_rows_scaled[grid](
            *tensors,
            m,
            n,
            row_bytes,
            groups,
            x.stride(0),
            per_split,
            KIND=KINDS[scale.dtype],
            PIECES=2 if config.halves == 2 and at_once == per_word == 4 else 1,
            **shared,
        )
    else:
        _few_rows[grid](
            *tensors, m, n, k, row_bytes, groups, x.stride(0), per_split, EVEN=even,
            POW2=scale.dtype == torch.int8, **shared,
        )  # fmt: skip
