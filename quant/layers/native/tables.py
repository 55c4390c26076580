"""Linears whose codes stand for numbers of a table: small floats, codebooks, binary bases, zero points.

    y = sum_i (Q(x) T_i(codes)^T) column_i + bias

A term is a table of 8-bit numbers and the scale of each output channel. One is exact for floats (all numbers
of e4m3), integers with a zero point and one binary basis; two binary bases take two. Logarithmic and free
codebooks take two, which leaves 2^-16 of a channel's largest value. The
input is rounded by token, or with a calibrated scale; smoothing happens in the kernel, other transforms
before it in torch. Torch also rounds inputs with a calibrated zero point z to codes c, whose product is

    y = scale sum_k (c_k - h) w_k + scale (h - z) sum_k w_k,      h half of the codes,

where the second term is a constant of the layer and part of its bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quant.formats.codebooks import BinaryGrid, CodebookGrid
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.formats.grids import IntGrid
from quant.formats.logs import LogGrid
from quant.formats.quantizer import Quantizer
from quant.layers.attachments import Smooth
from quant.layers.encoded import Encoded, EncodedWeight
from quant.layers.lowbit import expand_table, gemm, operands, quantize

TRITON: Any = "triton"
TYPES = (torch.bfloat16, torch.float16, torch.float32)
WHOLE = 8
"""Bits of codes that are an operand as they are stored."""
FREE = ("channel", "tensor")
MOST_BASES = 2


class Term(NamedTuple):
    """One product: numbers of the codes, (1 or N, 2^bits), and the scale of each output channel, (N,).

    Without a table the stored codes are the operand.
    """

    table: Tensor | None
    column: Tensor


@dataclass(frozen=True)
class Tables:
    """A linear in as many products as it has terms, the smallest first, so that its rounding is.

    `scale` is the calibrated scale of the input, of one element; without it each token has its own. `zero` is
    its zero point, where it has one.
    """

    op: str
    packed: Tensor
    terms: tuple[Term, ...]
    bits: int
    in_features: int
    kind: Any
    input_bits: int
    scale: Tensor | None
    zero: Tensor | None
    bias: Tensor | None
    inverse_smooth: Tensor | None
    shift: float
    transform: nn.Module | None
    branch: nn.Module | None

    def takes(self, x: Tensor) -> bool:
        """Whether `x` can go this way."""
        return x.dtype in TYPES

    def path(self, x: Tensor, producer: Any = None) -> str:
        """Say who does what for this input: what is before and beside the product stays in floating point."""
        around = [type(one).__name__.lower() for one in (self.transform, self.branch) if one is not None]
        return f"{self.op}: triton" + (f", {' and '.join(around)} by torch" if around else "")

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to (..., K)."""
        hidden = x if self.transform is None else self.transform(x)
        flat = hidden.reshape(-1, self.in_features).contiguous()
        codes, row = self._rows(flat)
        out: Tensor | None = None
        for index, (table, column) in enumerate(self.terms):
            last = index == len(self.terms) - 1
            out = gemm.gemm(
                codes, row, self.operand(table), column, self.bias if last else None,
                dtype=x.dtype, path=TRITON, residual=out,
            ).value  # fmt: skip
        assert out is not None  # there is always a term
        out = out.reshape(*x.shape[:-1], self.packed.shape[0])
        return out if self.branch is None else out + self.branch(x)

    def _rows(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of rows, columns padded, and the scale of each row."""
        scale = self._scale(flat)
        if self.zero is None or scale is None:
            rows = quantize.quantize(
                flat, self.kind, self.input_bits, inverse_smooth=self.inverse_smooth, shift=self.shift,
                path=TRITON, scale=scale,
            )  # fmt: skip
            return rows.codes, rows.scale
        count = 2**self.input_bits
        steps = torch.round(flat.float() / scale[:, None]) + self.zero
        codes = (steps.clamp(0, count - 1) - count // 2).nan_to_num().to(torch.int8)
        return nn.functional.pad(codes, (0, operands.padded_columns(self.in_features) - flat.shape[1])), scale

    def operand(self, table: Tensor | None) -> Tensor:
        """Decode the weight to numbers of a term, (N, K padded)."""
        if table is not None:
            return expand_table.expand_table(self.packed, table, self.bits, self.in_features, TRITON).value
        missing = operands.padded_columns(self.in_features) - self.in_features
        dtype = torch.int8 if self.kind == "int_token" else torch.float8_e4m3fn
        return (nn.functional.pad(self.packed, (0, missing)) if missing else self.packed).view(dtype)

    def _scale(self, flat: Tensor) -> Tensor | None:
        """Calibrated scale of each row; NaN where the row holds one, as a rounded and clipped code cannot."""
        if self.scale is None:
            return None
        scale = self.scale.expand(flat.shape[0])
        return torch.where(flat.amax(1).isnan(), torch.nan, scale) if flat.numel() else scale.contiguous()


def obstacle(weight: Quantizer, activation: Quantizer | None) -> str:
    """Why a linear of these formats cannot go this way; empty if it can."""
    if weight.granularity.kind not in FREE or weight.fine is not None:
        return f"no kernel for {weight.label} weights"
    if activation is None:
        return "the input is not quantized"
    side = _side(weight)
    if not side:
        return f"no tensor core takes {weight.label} weights"
    grid, schedule, shared = activation.grid, activation.schedule.kind, activation.granularity.kind
    if (schedule, shared) not in (("dynamic", "token"), ("static", "tensor")) or activation.fine is not None:
        return f"no kernel for {schedule} {activation.label} inputs"
    if side == "e4m3":
        fits = isinstance(grid, FloatGrid) and grid.hardware == "e4m3fn"
    else:
        modes = ("symmetric", "asymmetric") if schedule == "static" else ("symmetric",)
        fits = isinstance(grid, IntGrid) and grid.mode in modes and activation.scale == "real"
    return "" if fits else f"{activation.label} inputs beside {weight.label} weights"


def op_of(weight: Quantizer, activation: Quantizer) -> str:
    """Name of the operation, as ``W4A8 e4m3`` or ``W1A4 table``."""
    kind = "e4m3" if _side(weight) == "e4m3" else "table"
    return f"W{weight.bits}A{activation.bits} {kind}"


def _side(weight: Quantizer) -> str:
    """Which tensor cores take a weight, "e4m3" or "int8"; empty if none."""
    grid = weight.grid
    if isinstance(grid, FloatGrid):
        exact = grid.hardware == "e4m3fn" or (grid.code_bits < WHOLE and _in_e4m3(grid))
        return "e4m3" if exact else ""
    if isinstance(grid, SearchedFloatGrid):
        formats = [grid.format(index) for index in range(len(grid.formats))]
        return "e4m3" if grid.code_bits < WHOLE and all(map(_in_e4m3, formats)) else ""
    if isinstance(grid, IntGrid):
        return "int8" if grid.bits < WHOLE or grid.mode == "symmetric" else ""
    if isinstance(grid, BinaryGrid):
        return "int8" if grid.bits <= MOST_BASES else ""
    return "int8" if isinstance(grid, LogGrid | CodebookGrid) else ""


def _in_e4m3(grid: FloatGrid) -> bool:
    values = torch.tensor(grid.table())
    return bool((values.to(torch.float8_e4m3fn).float() == values).all())


def prepare(layer: Encoded, op: str, bias: Tensor | None) -> Tables:
    """Make what the kernels take of a layer for which `obstacle` finds none."""
    encoded, quantizer = layer.encoded(), layer.input_quantizer
    assert quantizer is not None  # as `obstacle` saw to
    activation = quantizer.quantizer
    transform: Any = layer.transform
    zero = quantizer.zero_point if getattr(activation.grid, "mode", "") == "asymmetric" else None
    smooth = transform if type(transform) is Smooth and zero is None else None
    static = activation.schedule.kind == "static"
    made = Tables(
        op, encoded.packed, tuple(_terms(encoded)), encoded.quantizer.bits, encoded.shape[1],
        "int_token" if isinstance(activation.grid, IntGrid) else "e4m3_token",
        activation.bits, quantizer.scale.reshape(()).float() if static else None,
        None if zero is None else zero.reshape(()).float(), bias,
        None if smooth is None else (1.0 / smooth.factor.float()).contiguous(),
        0.0 if smooth is None else smooth.shift,
        None if smooth is not None else transform, layer.branch,
    )  # fmt: skip
    return made if zero is None else replace(made, bias=_with_zero(made))


def _with_zero(layer: Tables) -> Tensor:
    """Bias that holds what the input's zero point adds to every row."""
    assert layer.scale is not None and layer.zero is not None  # as `prepare` saw to
    sums = sum(layer.operand(table).float().sum(1) * column for table, column in layer.terms)
    constant = layer.scale * (2 ** (layer.input_bits - 1) - layer.zero) * sums
    return constant if layer.bias is None else constant + layer.bias.float()


def _terms(encoded: EncodedWeight) -> list[Term]:
    grid, params, n = encoded.quantizer.grid, encoded.params, encoded.shape[0]
    count, device = 2**encoded.quantizer.bits, encoded.packed.device
    if isinstance(grid, BinaryGrid):
        codes = torch.arange(count, device=device)
        signs = [((codes >> index) & 1) * 2 - 1 for index in range(grid.bits)]
        return [
            Term(sign.to(torch.int8)[None], _column(alpha, n))
            for sign, alpha in reversed([*zip(signs, params["bases"], strict=True)])
        ]
    if isinstance(grid, SearchedFloatGrid):
        every = [grid.format(index).table() for index in range(len(grid.formats))]
        chosen = torch.tensor(every, device=device)[params["format"].reshape(-1).long()]
        return [Term(chosen.to(torch.float8_e4m3fn), _column(params["scale"], n))]
    if isinstance(grid, FloatGrid):
        exact = torch.tensor([grid.table()], device=device).to(torch.float8_e4m3fn)
        return [Term(None if grid.hardware else exact, _column(params["scale"], n))]
    if isinstance(grid, IntGrid):
        return [Term(_integers(grid, params, count, device), _column(params["scale"], n))]
    used = len(grid.values) if isinstance(grid, CodebookGrid) else count
    every = torch.arange(count, dtype=torch.uint8, device=device).clamp(max=used - 1).expand(n, -1)
    values = encoded.quantizer.decode(every, params, encoded.layout, torch.float32)
    return [Term(*pair) for pair in reversed(expand_table.codebook_tables(values))]


def _integers(grid: IntGrid, params: dict[str, Tensor], count: int, device: torch.device) -> Tensor | None:
    """Numbers of integer codes without their scale; None for those that are stored as they are."""
    codes = torch.arange(count, device=device)[None]
    if grid.mode == "symmetric":
        return None if grid.bits == WHOLE else torch.where(codes < count // 2, codes, codes - count).char()
    zero = params["zero_point"].reshape(-1, 1).long() if "zero_point" in params else 0
    return (codes - zero).to(torch.int8).contiguous()


def _column(scale: Tensor, n: int) -> Tensor:
    """Scale of each output channel."""
    return scale.reshape(-1).float().expand(n).contiguous()
