"""A whole SVDQuant linear: 4-bit codes on both sides, a 16-bit low-rank branch, bias.

    out = Q(x / smooth) Q(W)^T + (x down^T) up^T + bias

Three steps (`kernels.products.lowrank_steps`):

1. `kernels.products.expand`: packed codes and fine group scales to an 8-bit operand, once a forward, or never
   where the operand is kept;
2. `kernels.rows.quantize`: what comes before, smoothing, scales, codes and the down-projection;
3. `kernels.products.gemm`, or torch's product of the same operands where the table says that it is faster.

With power-of-two group scales the branch lies in columns of the operands (see `kernels.rows.quantize`), with
integer ones it is a product in the epilogue. The factors are held once, as they are stored. Numerics: codes
are computed in float32 from an unrounded smoothed input; sums are those of `gemm`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels import paths
from kernels.products.expand import Branch, expand
from kernels.products.gemm import gemm
from kernels.products.lowrank_steps import linear, torch_multiplies
from kernels.rows.before import Before
from kernels.rows.operands import balance_of, padded_columns, padded_rank
from kernels.rows.quantize import NOTHING, Kind, quantize
from kernels.rows.quantize_reference import APPENDED

FINE = {True: (-9, 6), False: (0, 15)}
"""Exponents of two, and integers, that keep a 4-bit code within 8 bits."""


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
        The branch.
    balance : float32 tensor of shape (R,) or None
        Its powers of two, where it is appended to the operands.
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
    balance: Tensor | None = None
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
        Branch on the raw input, in 16 bit; finite beside exponents of two.
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
    least, most = (int(fine.min()), int(fine.max())) if fine.numel() else (0, 0)
    lowest, highest = FINE[power]
    if least < lowest or most > highest:
        raise ValueError(
            f"lowrank_linear: {fine.dtype} group scales lie in {lowest}..{highest}, got {least}..{most}; "
            "codes times larger ones leave 8 bits"
        )
    column_scale = column_scale.float().contiguous()
    balance = None
    if down is not None and up is not None:
        missing = padded_rank(down.shape[0]) - down.shape[0]
        if missing:
            up, down = pad(up, (0, missing)), pad(down, (0, 0, 0, missing))
        up, down = up.contiguous(), down.contiguous()
        if power and not (up.isfinite().all() and down.isfinite().all()):
            raise ValueError(
                "lowrank_linear: the branch holds numbers that are not finite; float8 columns would lose them"
            )
        if power:
            balance = balance_of(up, column_scale)
        elif up.dtype == torch.float32:
            up = up.to(torch.bfloat16)  # as `quantize` writes the rows
    return LowRankWeight(
        packed.contiguous(), fine.contiguous(), column_scale, in_features, group, kind,
        None if smooth is None else (1.0 / smooth.float()).contiguous(),
        down, up, balance, bias, shift, shift != 0 and activation_bits == 4,
        -6 if power and fine.numel() and least >= -6 else -9, activation_bits,
    )  # fmt: skip


def decoded(weight: LowRankWeight, path: paths.Path = "auto") -> LowRankWeight:
    """Return the same weight with its operand kept: 8 bits a weight in memory, nothing to decode per call."""
    return replace(weight, operand=operand_of(weight, path))


def operand_of(weight: LowRankWeight, path: paths.Path = "auto") -> Tensor:
    """Decode the weight: what it is multiplied as."""
    return expand(
        weight.packed, weight.fine, weight.in_features, weight.group, True, None, weight.least, path,
        branch=_branch(weight),
    ).value  # fmt: skip


def _branch(weight: LowRankWeight) -> Branch | None:
    if weight.balance is None or weight.up is None:
        return None
    return Branch(weight.up, weight.column_scale, weight.balance)


def lowrank_linear(
    x: Tensor, weight: LowRankWeight, path: paths.Path = "auto", before: Before = NOTHING
) -> paths.Result:
    """Apply the layer.

    Parameters
    ----------
    x : tensor of shape (..., K), (..., 2 K) before GEGLU
        Any rank from 1; bfloat16, float16 or float32.
    weight : LowRankWeight
    path : str in {"auto", "reference", "triton"}
    before : Before
        What the input goes through first; gains and offsets are those of the flattened rows.

    Returns
    -------
    paths.Result
        ``value`` of shape (..., N) and of the type of `x`.
    """
    wide = 2 * weight.in_features if before.kind == "geglu" else weight.in_features
    if x.ndim < 1 or x.shape[-1] != wide:
        raise ValueError(f"lowrank_linear: x must be (..., {wide}), got {tuple(x.shape)}")
    rows = x.reshape(-1, wide)
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    w = weight
    chosen = paths.choose(path, rows, paths.FLOAT8 if w.kind in APPENDED else (8, 0))
    if chosen == "triton" and before.matrix is None:
        out = linear(
            rows, w.packed, w.fine, w.column_scale, w.bias, w.inverse_smooth, w.down, w.up, w.balance,
            w.operand, w.in_features, w.group, w.kind, w.bits, w.shift, w.unsigned, w.least, before.kind,
            before.gain, before.offset, before.rows, before.eps,
        )  # fmt: skip
    else:
        codes = quantize(
            rows, w.kind, w.bits, w.group, w.inverse_smooth, w.shift, w.unsigned, w.down, path, before,
            balance=w.balance,
        )  # fmt: skip
        operand = operand_of(w, path) if w.operand is None else w.operand
        up = None if codes.low is None else w.up
        out = gemm(
            codes.codes, codes.scale, operand, w.column_scale, w.bias, codes.low, up, x.dtype, path
        ).value
    return paths.Result(out.reshape(*x.shape[:-1], w.packed.shape[0]), chosen)


def multiplied_by(x: Tensor, weight: LowRankWeight) -> str:
    """Who multiplies the operands of a layer for this input on a GPU: "triton" or "torch"."""
    n, k = weight.packed.shape[0], padded_columns(weight.in_features)
    k += 0 if weight.up is None else 4 * weight.up.shape[1]
    m = x.numel() // x.shape[-1] if x.shape[-1] else 0
    appended = weight.kind in APPENDED
    return "torch" if appended and torch_multiplies(m, n, k, x.dtype, weight.bias, x) else "triton"
