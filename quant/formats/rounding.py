"""What grids share: straight-through rounding, stored scales, exact exponents, tables of values."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.modes import kept


class _RoundSTE(torch.autograd.Function):
    """Round half to even forwards, identity backwards."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def round_ste_(x: Tensor) -> Tensor:
    """Round half to even, in place; where gradients are recorded, pass them straight through."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _RoundSTE.apply(x)
    return x.round_()


def round_ste(x: Tensor) -> Tensor:
    """Round half to even, and pass gradients straight through."""
    return _RoundSTE.apply(x)


def least_scale(dtype: torch.dtype) -> float:
    """Smallest scale of a type that can be divided by: in float16 also below its normal numbers.

    Arithmetic happens in float32 at least, whose subnormal numbers (and bfloat16's) a GPU takes for 0.
    """
    return 2.0**-24 if dtype == torch.float16 else torch.finfo(dtype).tiny


def safe_scale(scale: Tensor) -> Tensor:
    """Replace scales that cannot be divided by (zero groups, underflow) by 1."""
    return torch.where(scale >= least_scale(scale.dtype), scale, torch.ones_like(scale))


def as_storage(scale: Tensor, power_of_two: bool, dtype: torch.dtype) -> Tensor:
    """Round a scale to what will be stored *before* any code is computed from it.

    Codes made with an unrounded scale and read with the rounded one are the classic way for a simulation
    and an engine to disagree.
    """
    if power_of_two:
        mantissa, exponent = torch.frexp(scale)
        exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)  # next power of two at or above
        scale = torch.where(scale > 0, torch.ldexp(torch.ones_like(scale), exponent), torch.zeros_like(scale))
    if dtype == torch.float8_e4m3fn:  # its comparisons do not exist, and a value above 448 becomes NaN
        return torch.where(scale > 0, scale.clamp(2.0**-9, 448.0), torch.ones_like(scale)).to(dtype)
    if dtype == torch.float16:  # a wide group is clipped and not infinite; infinities stay what they are
        scale = torch.where(scale.isinf(), scale, scale.clamp(max=torch.finfo(dtype).max))
    return safe_scale(scale.to(dtype))


def floor_log2(x: Tensor) -> Tensor:
    """floor(log2 x) of non-negative x, exact on powers of two (a logarithm is not); very small for 0."""
    _, exponent = torch.frexp(x)
    return torch.where(x > 0, exponent - 1, torch.full_like(exponent, -1000))


@kept(256)
def table_on(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give a list's copy on a device, which stays there: a CUDA graph cannot wait for the host's."""
    return torch.tensor(values, dtype=dtype, device=device)
