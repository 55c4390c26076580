"""Triton kernel of `int8_linear`: int8 tensor cores, int32 sums, scales and bias in the epilogue."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _int8_linear(
    a_ptr, b_ptr, row_ptr, column_ptr, bias_ptr, out_ptr, M, N, K,
    HAS_BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a_mask = (rows[:, None] < M) & (k[None, :] < K)
        b_mask = (columns[None, :] < N) & (k[:, None] < K)
        a = tl.load(a_ptr + rows[:, None] * K + k[None, :], mask=a_mask, other=0)
        b = tl.load(b_ptr + columns[None, :] * K + k[:, None], mask=b_mask, other=0)
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    row_scale = tl.load(row_ptr + rows, mask=rows < M, other=0.0)
    column_scale = tl.load(column_ptr + columns, mask=columns < N, other=0.0)
    out = total.to(tl.float32) * row_scale[:, None] * column_scale[None, :]
    if HAS_BIAS:
        out += tl.load(bias_ptr + columns, mask=columns < N, other=0.0)[None, :].to(tl.float32)
    mask = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(out_ptr + rows[:, None] * N + columns[None, :], out.to(out_ptr.dtype.element_ty), mask=mask)


def launch(
    codes: Tensor,
    row_scale: Tensor,
    weight: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Run the kernel; see `kernels.int8_linear`. Scales are applied in float32."""
    (m, k), n = codes.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=dtype, device=codes.device)
    block_m = 64 if m > 32 else 16
    grid = (triton.cdiv(m, block_m), triton.cdiv(n, 64))
    _int8_linear[grid](
        codes.contiguous(), weight.contiguous(),
        row_scale.float().contiguous(), column_scale.float().contiguous(),
        bias if bias is not None else column_scale, out, m, n, k,
        HAS_BIAS=bias is not None, BLOCK_M=block_m, BLOCK_N=64, BLOCK_K=64,
    )  # fmt: skip
    return out
