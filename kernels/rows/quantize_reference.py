"""Plain-torch reference of `quantize`: the branch in float64, codes by the kernel's operations."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.rows.operands import E4M3_MAX, padded_columns, two_floats

SQRT2_BITS = 0x3504F3
"""Mantissa of sqrt(2): above 2^e sqrt(2) the nearest power of two in the logarithm is 2^(e + 1)."""
TINY = torch.finfo(torch.float32).tiny
APPENDED = ("pow2_group", "e4m3_token")
"""Kinds whose branch lies in columns of the operand."""


def reference(
    x: Tensor, kind: str, limits: tuple[int, int, int], group: int, inverse_smooth: Tensor | None,
    shift: float,
    down: Tensor | None, given: Tensor | None, rows: int, balance: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Codes, row scales and branch of rows; arguments as in `kernels.rows.quantize`."""
    top, _, fine_top = limits
    k = x.shape[1]
    y = x.float() + shift if shift else x.float()
    y = y if inverse_smooth is None else y * inverse_smooth
    y = torch.nn.functional.pad(y, (0, padded_columns(k) - k))
    if given is not None:
        unit = given.repeat_interleave(rows)[: y.shape[0]]
    else:
        peak = y.abs().amax(1) if y.shape[1] else y.new_zeros(y.shape[0])
        unit = peak / torch.full_like(peak, top)  # by a plain number CUDA multiplies with its rounded inverse
    if kind == "int_group":
        unit = unit / torch.full_like(unit, fine_top)
    if kind == "pow2_group":
        unit = unit / 2**fine_top
    unit = torch.where(unit < TINY, torch.ones_like(unit), unit)
    unit = torch.where(unit < torch.inf, unit, torch.nan)
    inverse = 1.0 / unit
    lift = torch.zeros_like(unit, dtype=torch.int32)
    low = None if down is None else x.double() @ down.double().T
    if low is None or kind not in APPENDED:
        codes = _codes(y * inverse[:, None], lift, kind, limits, group)
        return codes, unit, None if low is None else low.to(low_type(x))
    low = low.float() if balance is None else low.float() * balance
    low = low * inverse[:, None]
    most = low.abs().amax(1) * (1.0 / E4M3_MAX)
    lift = (((most.view(torch.int32) + 0x7FFFFF) >> 23) - 127).clamp(0, 64)
    high, rest = two_floats(torch.ldexp(low, -lift[:, None]))
    codes = _codes(y * inverse[:, None], lift, kind, limits, group)
    columns = [column.view(torch.uint8) for column in (codes, high, high, rest, rest)]
    return torch.cat(columns, 1).view(torch.float8_e4m3fn), torch.ldexp(unit, lift), None


def low_type(x: Tensor) -> torch.dtype:
    """Type of a branch's down-projected rows."""
    return torch.bfloat16 if x.dtype == torch.float32 else x.dtype


def _codes(steps: Tensor, lift: Tensor, kind: str, limits: tuple[int, int, int], group: int) -> Tensor:
    top, least, fine_top = limits
    if kind == "e4m3_token":
        return torch.ldexp(steps.clamp(-top, top), -lift[:, None]).to(torch.float8_e4m3fn)
    if kind == "int_token":
        return torch.nan_to_num(torch.round(steps.clamp(least, top)), nan=0.0).to(torch.int8)
    columns = steps.shape[1]
    grouped = torch.nn.functional.pad(steps, (0, -columns % group)).unflatten(1, (-1, group))
    wanted = grouped.abs().amax(2) * torch.tensor(1.0 / top, dtype=torch.float32)
    if kind == "int_group":
        fine = torch.round(wanted).clamp(1, fine_top)
        code = torch.round(grouped * (1.0 / fine)[:, :, None]).clamp(least, top) * fine[:, :, None]
        return torch.nan_to_num(code, nan=0.0).flatten(1)[:, :columns].to(torch.int8)
    exponent = ((wanted.view(torch.int32) + (0x800000 - SQRT2_BITS)) >> 23) - 127
    exponent = exponent.clamp(-9, fine_top)
    code = torch.round(torch.ldexp(grouped, -exponent[:, :, None])).clamp(least, top)
    code = torch.ldexp(code, (exponent - lift[:, None])[:, :, None])
    return code.flatten(1)[:, :columns].to(torch.float8_e4m3fn)
