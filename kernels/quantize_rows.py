"""Per-row dynamic quantization to symmetric integers (per-token activations).

    scale_m = max_k |x_mk| / q,   code_mk = round_half_even(x_mk / scale_m),   q = 2^(bits-1) - 1

A row of zeros gets scale 1. Reads M*K elements once, writes M*K bytes and M scales.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import paths


class Rows(NamedTuple):
    """Codes (M, K) int8, scale (M,) float32, and the path that ran."""

    codes: Tensor
    scale: Tensor
    path: str


def quantize_rows(x: Tensor, bits: int = 8, path: paths.Path = "auto") -> Rows:
    """Quantize each row with its own scale.

    Parameters
    ----------
    x : float tensor of shape (M, K)
        Half types are computed in float32; float64 stays float64 (then so does the scale).
    bits : int
        2 to 8.
    path : str in {"auto", "reference", "triton"}

    Returns
    -------
    Rows
    """
    if x.ndim != 2:
        raise ValueError(f"x must be (rows, columns), got shape {tuple(x.shape)}")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2..8, got {bits}")
    chosen = paths.choose(path, x)
    if chosen == "reference":
        return Rows(*reference(x, bits), "reference")
    from kernels.quantize_rows_kernels import launch

    return Rows(*launch(x, bits), "triton")


def reference(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Plain torch, any device."""
    q = 2 ** (bits - 1) - 1
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    peak = wide.abs().amax(1)
    scale = peak / torch.full_like(peak, q)  # by a plain number CUDA would multiply with its rounded inverse
    scale = torch.where(scale >= torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
    return torch.round(wide / scale[:, None]).clamp(-q, q).to(torch.int8), scale
