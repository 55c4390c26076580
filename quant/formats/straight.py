"""Gradients through rounding: straight through inside a grid's range, clipped outside.

Rounding has no useful derivative. Where gradients are wanted, a grid computes its values as always and hands
out a *surrogate* of the same shape whose derivatives are those of LSQ (Esser et al. 2020): 1 for the input
inside the range and 0 outside; for a scale, ``(x_hat - x) / s`` inside and ``x_hat / s`` outside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_END = 1e-6


class _Straight(torch.autograd.Function):
    """Values forwards, the gradient to the surrogate backwards."""

    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight(surrogate: Tensor, values: Tensor) -> Tensor:
    """Return `values` bit for bit, with the derivatives of `surrogate`."""
    return _Straight.apply(surrogate, values)


def wanted(x: Tensor, params: dict[str, Tensor]) -> bool:
    """Whether somebody will ask for gradients of a tensor or of its parameters."""
    return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in params.values()))


def scaled(x: Tensor, values: Tensor, scale: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Surrogate of ``s G(x / s)`` for a grid G of values from `low` to `high`.

    Parameters
    ----------
    x : tensor
    values : tensor
        What `x` was rounded to.
    scale : tensor
        Broadcasts over `x`.
    low, high : float or tensor
        Ends of the grid before scaling.

    Returns
    -------
    tensor
        Its derivative with respect to `x` is 1 inside and 0 outside; with respect to `scale`
        ``(x_hat - x) / s`` and ``x_hat / s``.
    """
    unit = x / scale
    with torch.no_grad():
        # the extremes that a scale was made from lie on the end up to the last bit, and count as inside
        inside = (unit >= low - abs(low) * _END) & (unit <= high + abs(high) * _END)
        rounded = values / scale
    return (rounded + torch.where(inside, unit - unit.detach(), 0.0)) * scale
