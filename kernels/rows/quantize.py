"""Dynamic quantization of rows to 8-bit operands, with smoothing and the low-rank down-projection.

    y = (x + shift) / smooth,      row scale s_m from max_k |y_mk|,      low = x down^T

=============  =====================================================================  ===========================
kind           operand                                                                 row scale
=============  =====================================================================  ===========================
``int_token``  round(y / s), int8, codes of `bits` bits                                max / q
``int_group``  4-bit code times m = 1..15 (nearest) of its group, int8                 max / 7 / 15
``pow2_group`` 4-bit code times 2^k (nearest), k = -9..6, of its group, e4m3           max / 7 / 64
``e4m3_token`` y / s rounded to float8 e4m3                                            max / 448
=============  =====================================================================  ===========================

Unsigned 4-bit codes 0..15 (for values with a lower bound, lifted by `shift`) leave m <= 8 and k <= 4. A row of
zeros gets scale 1. A row that holds a NaN or an infinity gets that as its scale, so its products are NaN.

**The branch as columns.** For e4m3 kinds the branch needs no step of its own: a 16-bit number is the sum of two
e4m3 numbers (4 + 4 significant bits), so ``low up^T`` is ``[h h r r] [h r h r]^T`` of e4m3 columns appended to
both operands: one more tile of depth for rank 32. `low` is in units of the row there; a row whose branch would
leave e4m3 gets a unit 2^j coarser, which changes no code.

Reads M K elements once from memory (a second time from the cache), writes M K bytes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kernels import paths
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

Kind = Literal["int_token", "int_group", "pow2_group", "e4m3_token"]
E4M3_MAX = 448.0
ALIGNMENT = 16
"""Columns of an operand are padded with zeros to a multiple of this, so that the copy engine can fetch rows."""
SQRT2_BITS = 0x3504F3
TINY = torch.finfo(torch.float32).tiny


class Rows(NamedTuple):
    """An 8-bit operand.

    Attributes
    ----------
    codes : int8 or float8_e4m3fn tensor of shape (M, K_pad) or (M, K_pad + 4 R)
    scale : float32 tensor of shape (M,)
    low : tensor of shape (M, R) or None
        The branch after its down-projection, where it was not appended to `codes`.
    path : str
    """

    codes: Tensor
    scale: Tensor
    low: Tensor | None
    path: str


def quantize(
    x: Tensor,
    kind: Kind,
    bits: int = 4,
    group: int = 64,
    inverse_smooth: Tensor | None = None,
    shift: float = 0.0,
    unsigned: bool = False,
    down: Tensor | None = None,
    path: paths.Path = "auto",
    config: Config | None = None,
) -> Rows:
    """Quantize each row.

    Parameters
    ----------
    x : bfloat16, float16 or float32 tensor of shape (M, K)
        Rows may lie further apart than K elements.
    kind : str
        See the table above.
    bits : int
        Of ``int_token``: 2 to 8. Group kinds are of 4 bits.
    group : int
        Columns that share a fine scale: 16, 32, 64 or 128.
    inverse_smooth : float32 tensor of shape (K,), optional
        One over the smoothing factors.
    shift : float
    unsigned : bool
        Codes 0..15; group kinds only.
    down : tensor of shape (R, K), optional
        Down-projection of the branch, of the type of `x`; R a power of two from 16. For e4m3 kinds it must come
        from `branch_columns`, and the branch is appended to the codes.
    path : str in {"auto", "reference", "triton"}
    config : Config, optional
    """
    _check(x, kind, bits, group, inverse_smooth, unsigned, down)
    top = (
        448 if kind == "e4m3_token" else 2 ** (bits - 1) - 1 if kind == "int_token" else 15 if unsigned else 7
    )
    least = 0 if unsigned else -top
    fine_top = {"int_group": 8 if unsigned else 15, "pow2_group": 4 if unsigned else 6}.get(kind, 0)
    chosen = paths.choose(path, x)
    if chosen == "reference":
        return Rows(
            *_reference(x, kind, top, least, fine_top, group, inverse_smooth, shift, down), "reference"
        )
    from kernels.rows.quantize_kernels import launch

    m, k = x.shape
    padded = padded_columns(k)
    appended = down is not None and kind in ("pow2_group", "e4m3_token")
    columns = padded + (4 * down.shape[0] if appended and down is not None else 0)
    operand = torch.float8_e4m3fn if kind in ("pow2_group", "e4m3_token") else torch.int8
    codes = torch.empty(m, columns, dtype=operand, device=x.device)
    scale = torch.empty(m, dtype=torch.float32, device=x.device)
    low = None
    if down is not None and not appended:
        low = torch.empty(m, down.shape[0], dtype=_low_type(x), device=x.device)
    if m:
        config = config or lookup(
            "quantize_plain" if down is None else "quantize",
            (m, k, 0 if down is None else down.shape[0]),
            x.device,
        )
        launch(
            x,
            inverse_smooth,
            down,
            codes,
            scale,
            low,
            kind,
            top,
            least,
            fine_top,
            group,
            shift,
            padded,
            config,
        )
    return Rows(codes, scale, low, "triton")


def padded_columns(k: int) -> int:
    """Columns of an operand for K columns of data."""
    return -(-k // ALIGNMENT) * ALIGNMENT


def two_floats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Write float32 numbers as the sum of two e4m3 numbers, 8 significant bits in all."""
    high = x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return high, (x - high.float()).to(torch.float8_e4m3fn)


def branch_columns(down: Tensor, up: Tensor, column_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Prepare a low-rank branch that travels inside e4m3 operands.

    Parameters
    ----------
    down : tensor of shape (R, K)
    up : tensor of shape (N, R)
    column_scale : float32 tensor of shape (N,)
        Of the product that the branch joins.

    Returns
    -------
    down : tensor of shape (R', K)
        Rows times powers of two that fill e4m3's range on the other side, R padded to a power of two.
    columns : float8_e4m3fn tensor of shape (N, 4 R')
        To append to the weight's operand.
    """
    rank = max(16, 1 << max(down.shape[0] - 1, 0).bit_length())
    scaled = up.float() / column_scale.float()[:, None]
    largest = scaled.abs().amax(0)
    _, exponent = torch.frexp(torch.where(largest > 0, largest, torch.ones_like(largest)))
    exponent = exponent.to(torch.int32) - 8  # the largest lies in [128, 256)
    scaled = torch.ldexp(scaled, -exponent)
    scaled = torch.nn.functional.pad(scaled, (0, rank - down.shape[0]))
    high, rest = two_floats(scaled)
    balanced = torch.ldexp(down.float(), exponent[:, None]).to(down.dtype)
    balanced = torch.nn.functional.pad(balanced, (0, 0, 0, rank - down.shape[0]))
    return balanced.contiguous(), torch.cat([high.view(torch.uint8), rest.view(torch.uint8)] * 2, 1).view(
        torch.float8_e4m3fn
    )


def _reference(
    x: Tensor, kind: Kind, top: int, least: int, fine_top: int, group: int,
    inverse_smooth: Tensor | None, shift: float, down: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Plain torch: the branch in float64, codes by the kernel's float32 operations in the kernel's order."""
    k = x.shape[1]
    y = x.float() + shift if shift else x.float()
    y = y if inverse_smooth is None else y * inverse_smooth
    y = torch.nn.functional.pad(y, (0, padded_columns(k) - k))
    peak = y.abs().amax(1) if y.shape[1] else y.new_zeros(y.shape[0])
    unit = peak / torch.full_like(peak, top)  # by a plain number CUDA would multiply with its rounded inverse
    if kind == "int_group":
        unit = unit / torch.full_like(unit, fine_top)
    if kind == "pow2_group":
        unit = unit / 2**fine_top
    unit = torch.where(unit < TINY, torch.ones_like(unit), unit)
    inverse = 1.0 / unit
    lift = torch.zeros_like(unit, dtype=torch.int32)
    low = None if down is None else x.double() @ down.double().T
    appended = low is not None and kind in ("pow2_group", "e4m3_token")
    if appended and low is not None:
        low = low.float() * inverse[:, None]
        most = low.abs().amax(1) * (1.0 / E4M3_MAX)
        lift = (((most.view(torch.int32) + 0x7FFFFF) >> 23) - 127).clamp(0, 64)
        low = torch.ldexp(low, -lift[:, None])
    codes = _code_reference(y * inverse[:, None], lift, kind, top, least, fine_top, group)
    unit = torch.ldexp(unit, lift)
    if low is None or not appended:
        return codes, unit, None if low is None else low.to(_low_type(x))
    high, rest = two_floats(low)
    parts = [part.view(torch.uint8) for part in (codes, high, high, rest, rest)]
    return torch.cat(parts, 1).view(torch.float8_e4m3fn), unit, None


def _code_reference(
    steps: Tensor, lift: Tensor, kind: Kind, top: int, least: int, fine_top: int, group: int
) -> Tensor:
    lower = torch.ldexp(torch.ones_like(lift, dtype=torch.float32), -lift)
    if kind == "e4m3_token":
        return (steps.clamp(-top, top) * lower[:, None]).to(torch.float8_e4m3fn)
    if kind == "int_token":
        return torch.nan_to_num(torch.round(steps), nan=0.0).clamp(least, top).to(torch.int8)
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


def _low_type(x: Tensor) -> torch.dtype:
    return torch.bfloat16 if x.dtype == torch.float32 else x.dtype


def _check(
    x: Tensor,
    kind: Kind,
    bits: int,
    group: int,
    inverse_smooth: Tensor | None,
    unsigned: bool,
    down: Tensor | None,
) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"quantize: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if x.ndim != 2 or x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ValueError(
            f"quantize: x must be (rows, columns) in bfloat16, float16 or float32, got {tuple(x.shape)} {x.dtype}"
        )
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(f"quantize: values of a row must be neighbours, got strides {x.stride()}")
    if kind == "int_token" and not 2 <= bits <= 8:
        raise ValueError(f"quantize: bits must be 2..8, got {bits}")
    if kind.endswith("group") and (bits != 4 or group not in (16, 32, 64, 128)):
        raise ValueError(
            f"quantize: {kind} takes 4 bits in groups of 16, 32, 64 or 128, got {bits} and {group}"
        )
    if unsigned and not kind.endswith("group"):
        raise ValueError(f"quantize: unsigned codes are for group kinds, got {kind}")
    k = x.shape[1]
    if inverse_smooth is not None and (
        tuple(inverse_smooth.shape) != (k,) or inverse_smooth.dtype != torch.float32
    ):
        raise ValueError(
            f"quantize: inverse_smooth must be float32 of shape ({k},), got {tuple(inverse_smooth.shape)} "
            f"{inverse_smooth.dtype}"
        )
    if down is None:
        return
    rank = down.shape[0]
    if down.ndim != 2 or down.shape[1] != k or down.dtype != x.dtype or not down.is_contiguous():
        raise ValueError(
            f"quantize: down must be a contiguous (R, {k}) of {x.dtype}, got {tuple(down.shape)} {down.dtype}"
        )
    if rank < 16 or rank & (rank - 1):
        raise ValueError(
            f"quantize: the branch's rank must be a power of two from 16, got {rank}; pad with zeros"
        )
    if down.device != x.device:
        raise ValueError(f"quantize: down lies on {down.device}, x on {x.device}")
