"""Scales of two levels: a coarse one a row that waits for the finished sum, and a small number a group.

A group's scale lies on the reduction axis and asks for a rescale inside the sum. If it is a *small exact
number* times a scale of the whole row, the small number can be multiplied into the code instead, and what
remains of the scale is free:

=============  ===========================  ==============================================================
``pow2``       2^k, k = -9 .. 6 (int8)      4-bit code x 2^k is exact in float8 e4m3 (7 * 2^6 = 448, and
                                            2^-9 is its smallest subnormal): a full-rate 8-bit float GEMM
``int``        m = 1 .. 15 (uint8)          4-bit code x m is at most 105: a full-rate int8 GEMM
``e4m3``       e4m3 number (float8)         NVFP4: one float32 scale a tensor, exact in bfloat16 only
=============  ===========================  ==============================================================

Those ends are for codes -7 .. 7; unsigned codes 0 .. 15 leave less room: k <= 4 (15 * 2^4 = 240), m <= 8
(15 * 8 = 120).

Parameters are ``scale`` (coarse, float32) and ``scale_fine`` (a group); `effective` multiplies them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from quant.formats.granularity import Layout
from quant.formats.rounding import safe_scale

Fine = Literal["pow2", "int", "e4m3"]

E4M3_MAX, E4M3_MIN = 448.0, 2.0**-9
INT8_MAX = 127.0
POW2_LOW = -9
INT_MAX = 15  # four bits
SYMMETRIC = 7
"""Largest 4-bit code where codes are signed."""


def largest_fine(fine: Fine, code: int) -> float:
    """Largest fine scale whose product with the largest code is still a number of the operand's format."""
    if fine == "pow2":
        return 2.0 ** math.floor(math.log2(E4M3_MAX / code))
    return float(min(INT_MAX, INT8_MAX // code)) if fine == "int" else E4M3_MAX


def coarse_dims(scale: Tensor, layout: Layout, fine: Fine) -> tuple[int, ...]:
    """Axes of group scales that share a coarse one, so that the coarse one is free.

    A weight's row is its output channel; an input's row is a token, and for convolutions an image. NVFP4's
    coarse scale belongs to the whole tensor.
    """
    if fine == "e4m3":
        return tuple(range(scale.ndim))
    if layout == "linear_input":
        return (scale.ndim - 2, scale.ndim - 1)
    return tuple(range(1, scale.ndim))


def split(
    scale: Tensor, layout: Layout, fine: Fine, coarse: Tensor | None = None, code: int = SYMMETRIC
) -> dict[str, Tensor]:
    """Write real group scales as coarse times fine.

    Parameters
    ----------
    scale : tensor
        Real group scales, in view shape; 0 for groups without a range, which take no share in the coarse one.
    layout : Layout
    fine : {"pow2", "int", "e4m3"}
    coarse : tensor, optional
        Coarse scales to use; by default those that let the largest group keep its own scale exactly.
    code : int
        Largest code that is multiplied by a fine scale.

    Returns
    -------
    dict of str to tensor
        ``scale`` and ``scale_fine``, rounded to nearest (pow2: nearest logarithm). A group's largest code may
        be clipped a little; steps wide enough to avoid that cost more (pow2: 1.5 dB on Gaussian weights).
    """
    scale = scale.float()
    top = largest_fine(fine, code)
    if coarse is None:
        coarse = torch.amax(scale, coarse_dims(scale, layout, fine), keepdim=True) / top
    coarse = safe_scale(coarse)
    ratio = scale / coarse
    if fine == "e4m3":
        return {"scale": coarse, "scale_fine": ratio.clamp(E4M3_MIN, E4M3_MAX).to(torch.float8_e4m3fn)}
    if fine == "int":
        return {"scale": coarse, "scale_fine": torch.round(ratio).clamp(1, top).to(torch.uint8)}
    mantissa, exponent = torch.frexp(ratio)  # ratio = mantissa 2^exponent, mantissa in [1/2, 1)
    exponent = torch.where(mantissa < 0.5**0.5, exponent - 1, exponent)
    exponent = torch.where(ratio > 0, exponent, torch.full_like(exponent, POW2_LOW))
    return {"scale": coarse, "scale_fine": exponent.clamp(POW2_LOW, int(math.log2(top))).to(torch.int8)}


def neighbours(params: dict[str, Tensor], code: int = SYMMETRIC) -> list[dict[str, Tensor]]:
    """Fine scales one smaller, as they are, one larger (pow2 and int), for a search by group."""
    fine = params["scale_fine"]
    low, high = 1, int(largest_fine("int", code))
    if fine.dtype == torch.int8:
        low, high = POW2_LOW, int(math.log2(largest_fine("pow2", code)))
    moved = [(fine.int() + step).clamp(low, high).to(fine.dtype) for step in (-1, 0, 1)]
    return [{**params, "scale_fine": value} for value in moved]


def fine_values(fine: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers that stored fine scales stand for: 2^k for int8, the number itself otherwise."""
    if fine.dtype == torch.int8:
        return torch.ldexp(torch.ones(fine.shape, dtype=dtype, device=fine.device), fine.to(torch.int32))
    return fine.to(dtype)


def effective(params: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Fold a fine scale into the scale, for grids that know one only; other parameters pass."""
    if "scale_fine" not in params:
        return params
    rest = {name: tensor for name, tensor in params.items() if name != "scale_fine"}
    rest["scale"] = params["scale"].to(dtype) * fine_values(params["scale_fine"], dtype)
    return rest


def coarse_candidates(
    scale: Tensor, layout: Layout, fine: Fine, count: int, code: int = SYMMETRIC
) -> list[Tensor]:
    """Coarse scales worth trying: over one octave (pow2), or up to a third smaller (int).

    With powers of two, which group scales fit well depends on where in the octave the coarse one lies.
    """
    own = torch.amax(scale.float(), coarse_dims(scale, layout, fine), keepdim=True) / largest_fine(fine, code)
    if fine == "pow2":
        return [own * 2.0 ** (step / count) for step in range(count)]
    return [own * math.pow(2 / 3, step / count) for step in range(count)]
