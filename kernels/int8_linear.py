"""Integer GEMM with scales on its row and column axes (W8A8 and below, codes in int8).

    out_mn = sum_k a_mk b_nk  *  row_scale_m * column_scale_n  +  bias_n

The sum is exact in int32 (|code| <= 127 and K <= 2^17); scales are applied once, to the finished sum.
Reads M*K + N*K bytes and M + N scales, writes M*N elements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import paths


def int8_linear(
    codes: Tensor,
    row_scale: Tensor,
    weight: Tensor,
    column_scale: Tensor,
    bias: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    path: paths.Path = "auto",
) -> paths.Result:
    """Multiply quantized rows by a quantized weight.

    Parameters
    ----------
    codes : int8 tensor of shape (M, K)
    row_scale : tensor of shape (M,)
    weight : int8 tensor of shape (N, K)
        Row-major, unpacked.
    column_scale : tensor of shape (N,)
    bias : tensor of shape (N,), optional
    dtype : torch.dtype
        Of the output.
    path : str in {"auto", "reference", "triton"}
    """
    if codes.dtype != torch.int8 or weight.dtype != torch.int8:
        raise ValueError(f"codes must be int8, got {codes.dtype} and {weight.dtype}")
    if codes.shape[1] != weight.shape[1]:
        raise ValueError(f"reduction axes differ: {tuple(codes.shape)} and {tuple(weight.shape)}")
    if paths.choose(path, codes) == "reference":
        return paths.Result(reference(codes, row_scale, weight, column_scale, bias, dtype), "reference")
    from kernels.int8_linear_kernels import launch

    return paths.Result(launch(codes, row_scale, weight, column_scale, bias, dtype), "triton")


def reference(
    codes: Tensor,
    row_scale: Tensor,
    weight: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Plain torch, any device: float64 holds every partial sum of 8-bit codes exactly."""
    total = codes.double() @ weight.double().T
    out = total * row_scale.double()[:, None] * column_scale.double()
    return (out if bias is None else out + bias.double()).to(dtype)
