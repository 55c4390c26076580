"""Triton kernel of `w4_linear`: expands one group of 4-bit codes at a time next to the product.

A plain, correct first version: each program walks the groups of K, unpacks (N block, group) codes, applies
their scale and multiplies in float32. It is not tuned; the tuned Hopper forms keep this signature.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _w4_linear(
    x_ptr, packed_ptr, scale_ptr, bias_ptr, out_ptr, M, N, K, row_bytes, groups,
    GROUP: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x_mask = (rows[:, None] < M) & (k[None, :] < K)
        w_mask = (columns[None, :] < N) & (k[:, None] < K)
        x = tl.load(x_ptr + rows[:, None] * K + k[None, :], mask=x_mask, other=0.0).to(tl.float32)
        byte = tl.load(packed_ptr + columns[None, :] * row_bytes + k[:, None] // 2, mask=w_mask, other=0)
        nibble = (byte.to(tl.int32) >> ((k[:, None] % 2) * 4)) & 15
        code = nibble - (nibble >= 8) * 16
        scale = tl.load(scale_ptr + columns[None, :] * groups + k[:, None] // GROUP, mask=w_mask, other=0.0)
        weight = code.to(tl.float32) * scale.to(tl.float32)
        total = tl.dot(x, weight, total, input_precision="ieee")
    if HAS_BIAS:
        total += tl.load(bias_ptr + columns, mask=columns < N, other=0.0)[None, :].to(tl.float32)
    mask = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(out_ptr + rows[:, None] * N + columns[None, :], total.to(out_ptr.dtype.element_ty), mask=mask)


def launch(x: Tensor, packed: Tensor, scale: Tensor, group_size: int, bias: Tensor | None) -> Tensor:
    """Run the kernel; see `kernels.w4_linear`. Sums are float32."""
    (m, k), n = x.shape, packed.shape[0]
    out = torch.empty(m, n, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(m, 16), triton.cdiv(n, 32))
    _w4_linear[grid](
        x.contiguous(), packed.contiguous(), scale.contiguous(), bias if bias is not None else scale, out,
        m, n, k, packed.shape[1], scale.shape[1],
        GROUP=group_size, HAS_BIAS=bias is not None, BLOCK_M=16, BLOCK_N=32, BLOCK_K=64,
    )  # fmt: skip
    return out
