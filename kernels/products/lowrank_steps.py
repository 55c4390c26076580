"""Steps of `lowrank_linear` on a GPU as one operation: decode the weight, quantize the rows, multiply.

One after the other: on a second stream, decoding overlapped nothing (benchmarks/kernels/NOTES.md, run 8).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import paths
from kernels.products.expand import Branch, expand
from kernels.products.gemm import gemm
from kernels.registered import operation
from kernels.rows.before import Before
from kernels.rows.quantize import Kind, quantize
from kernels.tuned.table import lookup

ROWWISE = (9, 0)
"""Compute capability from which torch multiplies float8 with a scale a row and one a column."""
MULTIPLE = 16
"""Columns of its operands and result come in multiples of this; a scale of one row it takes for all rows."""


def torch_multiplies(m: int, n: int, k: int, out: torch.dtype, bias: Tensor | None, a: Tensor) -> bool:
    """Whether the table gives a float8 product to ``torch._scaled_mm``, and that takes it.

    It sums as `gemm` does on Hopper (about 14 bits), in another order.
    """
    fits = (
        a.is_cuda and paths.capability(a.device) >= ROWWISE
        and m >= MULTIPLE and k % MULTIPLE == n % MULTIPLE == 0
        and out == torch.bfloat16 and (bias is None or bias.dtype == out)
    )  # fmt: skip
    return fits and lookup("product_fp8", (m, n, k), a.device).vendor


def _empty(x: Tensor, packed: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape[0], packed.shape[0])


@operation(
    "lowrank_linear",
    "(Tensor x, Tensor packed, Tensor fine, Tensor column_scale, Tensor? bias, Tensor? inverse_smooth, "
    "Tensor? down, Tensor? up, Tensor? balance, Tensor? operand, int k, int group, str kind, int bits, "
    "float shift, bool unsigned, int least, str before, Tensor? gain, Tensor? offset, int rows, "
    "float eps) -> Tensor",
    _empty,
)
def linear(
    x: Tensor, packed: Tensor, fine: Tensor, column_scale: Tensor, bias: Tensor | None,
    inverse_smooth: Tensor | None, down: Tensor | None, up: Tensor | None, balance: Tensor | None,
    operand: Tensor | None, k: int, group: int, kind: Kind, bits: int, shift: float, unsigned: bool,
    least: int, before: str, gain: Tensor | None, offset: Tensor | None, rows: int, eps: float,
) -> Tensor:  # fmt: skip
    """Apply a layer to rows (M, K) through Triton; arguments as of `LowRankWeight` and `Before`."""
    branch = None if balance is None or up is None else Branch(up, column_scale, balance)
    first = Before(before, gain, offset, rows, eps)
    if operand is None:
        operand = expand(packed, fine, k, group, True, None, least, "triton", branch=branch).value
    a, row_scale, low, _ = quantize(
        x, kind, bits, group, inverse_smooth, shift, unsigned, down, "triton", first, balance=balance
    )
    return product(a, row_scale, operand, column_scale, bias, low, None if low is None else up, x.dtype)


def product(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None, low: Tensor | None,
    up: Tensor | None, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Multiply operands by the way that is faster for their shape."""
    (m, k), n = a.shape, b.shape[0]
    if low is None and a.dtype == torch.float8_e4m3fn and torch_multiplies(m, n, k, dtype, bias, a):
        return torch._scaled_mm(
            a, b.T, scale_a=row_scale[:, None], scale_b=column_scale[None], bias=bias, out_dtype=dtype,
            use_fast_accum=True,
        )  # fmt: skip
    return gemm(a, row_scale, b, column_scale, bias, low, up, dtype, "triton").value
