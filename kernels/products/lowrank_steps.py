"""Steps of `lowrank_linear` on a GPU as one operation: rows and weight are made ready side by side.

Quantizing rows and decoding the weight do not wait for each other, and both are bound by memory and by the
ramps of small launches. So the weight is decoded on a second stream; in a CUDA graph that is a second branch.
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
_beside: dict[tuple[torch.device, int], torch.cuda.Stream] = {}


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
    "float shift, bool unsigned, int least, str before, Tensor? gain, Tensor? offset, int rows, float eps, "
    "Tensor? second) -> Tensor",
    _empty,
)
def linear(
    x: Tensor, packed: Tensor, fine: Tensor, column_scale: Tensor, bias: Tensor | None,
    inverse_smooth: Tensor | None, down: Tensor | None, up: Tensor | None, balance: Tensor | None,
    operand: Tensor | None, k: int, group: int, kind: Kind, bits: int, shift: float, unsigned: bool,
    least: int, before: str, gain: Tensor | None, offset: Tensor | None, rows: int, eps: float,
    second: Tensor | None,
) -> Tensor:  # fmt: skip
    """Apply a layer to rows (M, K) through Triton; arguments as of `LowRankWeight` and `Before`."""
    branch = None if balance is None or up is None else Branch(up, column_scale, balance)
    first = Before(before, gain, offset, rows, eps, second=second)

    def codes() -> tuple[Tensor, Tensor, Tensor | None]:
        return quantize(
            x, kind, bits, group, inverse_smooth, shift, unsigned, down, "triton", first, balance=balance
        )[:3]

    def weight() -> Tensor:
        return expand(packed, fine, k, group, True, None, least, "triton", branch=branch).value

    if operand is not None:
        a, row_scale, low = codes()
    elif not x.is_cuda:
        operand = weight()
        a, row_scale, low = codes()
    else:
        here = torch.cuda.current_stream(x.device)
        beside = _stream(here)
        # the operand's memory is the second stream's: given back when the product was called, it is written
        # again only after this wait
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            operand = weight()
        a, row_scale, low = codes()
        here.wait_stream(beside)
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


def _stream(here: torch.cuda.Stream) -> torch.cuda.Stream:
    """Return the second stream of a stream: those that run side by side share none."""
    key = (here.device, here.cuda_stream)
    if key not in _beside:
        _beside[key] = torch.cuda.Stream(here.device)
    return _beside[key]
