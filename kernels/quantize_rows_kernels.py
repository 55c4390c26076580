"""Triton kernel of `quantize_rows`: one program a row block, the row's maximum first, then its codes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from kernels.paths import INTERPRETED


@triton.jit
def _quantize_rows(
    x_ptr, codes_ptr, scale_ptr, columns, q: tl.constexpr, BLOCK: tl.constexpr, SOFT: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    peak = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        offset = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * columns + offset, mask=offset < columns, other=0.0).to(tl.float32)
        peak = tl.maximum(peak, tl.abs(x))
    scale = tl.div_rn(tl.max(peak, axis=0), tl.full((), q, tl.float32))
    scale = tl.where(scale >= 1.1754943508222875e-38, scale, 1.0)  # smallest normal float32
    tl.store(scale_ptr + row, scale)
    for start in range(0, columns, BLOCK):
        offset = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * columns + offset, mask=offset < columns, other=0.0).to(tl.float32)
        steps = tl.div_rn(x, tl.zeros((BLOCK,), tl.float32) + scale)
        if SOFT:  # the interpreter has no rint: adding and taking away 1.5 * 2^23 rounds half to even
            rounded = (steps + 12582912.0) - 12582912.0
        else:
            rounded = libdevice.rint(steps)
        rounded = tl.minimum(tl.maximum(rounded, -q * 1.0), q * 1.0)
        tl.store(codes_ptr + row * columns + offset, rounded.to(tl.int8), mask=offset < columns)


def launch(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Run the kernel; see `kernels.quantize_rows`. Arithmetic is float32."""
    x = x.contiguous()
    rows, columns = x.shape
    codes = torch.empty(rows, columns, dtype=torch.int8, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = min(4096, triton.next_power_of_2(columns))
    q = 2 ** (bits - 1) - 1
    _quantize_rows[(rows,)](x, codes, scale, columns, q=q, BLOCK=block, SOFT=INTERPRETED)
    return codes, scale
