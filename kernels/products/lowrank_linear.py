"""A whole SVDQuant linear: 4-bit codes on both sides, a 16-bit low-rank branch, bias.

    out = Q(x / smooth) Q(W)^T + (x down^T) up^T + bias

Two launches, and a third that decodes the weight (once a forward, or never where the operand is kept):

1. `kernels.rows.quantize`: x is read once for smoothing, scales, codes and the down-projection;
2. `kernels.products.expand`: packed codes and fine group scales to an 8-bit operand;
3. `kernels.products.gemm`: full-rate product; scales, bias and up-projection in the epilogue.

With power-of-two group scales the branch lies in columns of the operands (see `kernels.rows.quantize`), with
integer ones it is a product in the epilogue. Numerics: codes are computed in float32 from an unrounded
smoothed input; sums are those of `gemm`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kernels import paths
from kernels.products.expand import expand
from kernels.products.gemm import gemm
from kernels.rows.operands import branch_columns, padded_rank
from kernels.rows.quantize import Kind, quantize


@dataclass(frozen=True)
class LowRankWeight:
    """What `lowrank_linear` needs of a layer, prepared once by `prepare`.

    Attributes
    ----------
    packed, fine, column_scale : tensors
        As `kernels.products.expand` takes them, and the coarse scale of each output channel.
    in_features, group : int
    kind : {"pow2_group", "int_group", "e4m3_token", "int_token"}
        Of the input; a group kind is 4 bits, a token kind 8.
    inverse_smooth : float32 tensor of shape (K,) or None
    down, up : tensors or None
        The branch; `up` only where it is multiplied in the epilogue.
    tail : float8_e4m3fn tensor or None
        The branch's columns of the weight, where it is appended.
    bias : tensor of shape (N,) or None
    shift : float
        Added to the input first, for unsigned codes.
    least : int
        Least exponent that `fine` may hold: -6 or -9, so that compiled layers differ in nothing but tensors.
    bits : int
        Of the input's codes.
    operand : tensor or None
        The decoded weight, where it is kept.
    """

    packed: Tensor
    fine: Tensor
    column_scale: Tensor
    in_features: int
    group: int
    kind: Kind
    inverse_smooth: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    tail: Tensor | None = None
    bias: Tensor | None = None
    shift: float = 0.0
    unsigned: bool = False
    least: int = -9
    bits: int = 4
    operand: Tensor | None = None


def prepare(
    packed: Tensor,
    fine: Tensor,
    column_scale: Tensor,
    in_features: int,
    group: int = 64,
    activation_bits: int = 4,
    smooth: Tensor | None = None,
    down: Tensor | None = None,
    up: Tensor | None = None,
    bias: Tensor | None = None,
    shift: float = 0.0,
) -> LowRankWeight:
    """Bring a layer's tensors into the form that the kernels take.

    Parameters
    ----------
    packed : uint8 tensor of shape (N, ceil(K / 2))
    fine : tensor of shape (N, ceil(K / group))
        int8 exponents of two or uint8 integers.
    column_scale : tensor of shape (N,)
    in_features : int
        K.
    group : int
    activation_bits : {4, 8}
        4: in groups with fine scales of the weight's kind; 8: one scale a token.
    smooth : tensor of shape (K,), optional
        Factors that the input is divided by.
    down, up : tensors of shape (R, K) and (N, R), optional
        Branch on the raw input, in 16 bit.
    bias : tensor of shape (N,), optional
    shift : float
        Where it is not 0, input codes are unsigned.
    """
    if activation_bits not in (4, 8):
        raise ValueError(f"lowrank_linear: inputs have 4 or 8 bits, got {activation_bits}")
    if (down is None) != (up is None):
        raise ValueError("lowrank_linear: down and up belong together, got only one of them")
    power = fine.dtype == torch.int8
    kind: Kind = "pow2_group" if power else "int_group"
    if activation_bits == 8:
        kind = "e4m3_token" if power else "int_token"
    column_scale = column_scale.float().contiguous()
    tail = None
    if down is not None and up is not None:
        if power:
            down, tail = branch_columns(down, up, column_scale)
            up = None
        else:
            rank = padded_rank(down.shape[0])
            up = torch.nn.functional.pad(up, (0, rank - down.shape[0])).contiguous()
            up = up.to(torch.bfloat16) if up.dtype == torch.float32 else up  # as `quantize` writes the rows
            down = torch.nn.functional.pad(down, (0, 0, 0, rank - down.shape[0])).contiguous()
    return LowRankWeight(
        packed.contiguous(), fine.contiguous(), column_scale, in_features, group, kind,
        None if smooth is None else (1.0 / smooth.float()).contiguous(),
        down, up, tail, bias, shift, shift != 0 and activation_bits == 4,
        -6 if power and fine.numel() and int(fine.min()) >= -6 else -9, activation_bits,
    )  # fmt: skip


def decoded(weight: LowRankWeight, path: paths.Path = "auto") -> LowRankWeight:
    """Return the same weight with its operand kept: 8 bits a weight in memory, nothing to decode per call."""
    operand = expand(
        weight.packed, weight.fine, weight.in_features, weight.group, True, weight.tail, weight.least, path
    )
    return replace(weight, operand=operand.value)


def lowrank_linear(x: Tensor, weight: LowRankWeight, path: paths.Path = "auto") -> paths.Result:
    """Apply the layer.

    Parameters
    ----------
    x : tensor of shape (..., K)
        Any rank from 1; bfloat16, float16 or float32.
    weight : LowRankWeight
    path : str in {"auto", "reference", "triton"}

    Returns
    -------
    paths.Result
        ``value`` of shape (..., N) and of the type of `x`.
    """
    if x.ndim < 1 or x.shape[-1] != weight.in_features:
        raise ValueError(f"lowrank_linear: x must be (..., {weight.in_features}), got {tuple(x.shape)}")
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    codes = quantize(
        rows, weight.kind, weight.bits, weight.group, weight.inverse_smooth,
        weight.shift, weight.unsigned, weight.down, path,
    )  # fmt: skip
    operand = weight.operand
    if operand is None:
        operand = expand(
            weight.packed,
            weight.fine,
            weight.in_features,
            weight.group,
            True,
            weight.tail,
            weight.least,
            path,
        ).value
    out = gemm(
        codes.codes,
        codes.scale,
        operand,
        weight.column_scale,
        weight.bias,
        codes.low,
        weight.up,
        x.dtype,
        path,
    )
    return paths.Result(out.value.reshape(*x.shape[:-1], weight.packed.shape[0]), out.path)
