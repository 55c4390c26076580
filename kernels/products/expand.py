"""4-bit codes times fine group scales as an 8-bit operand: decode a weight once, multiply at full rate.

    out_nk = code_nk 2^fine   (fine int8:  float8 e4m3, exact)
    out_nk = code_nk fine     (fine uint8: int8, exact while |code| fine <= 127)

Layout: row-major, even k in the low nibble, two's complement if signed; the last group may be incomplete.
Columns are padded with zeros to a multiple of 16; `tail` (a low-rank branch as e4m3 columns,
`kernels.rows.quantize`) is appended. Reads N K / 2 bytes, writes N K.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import packing, paths
from kernels.registered import on_its_device, operation
from kernels.rows.operands import columns_of, padded_columns, padded_rank
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

GROUPS = (16, 32, 64, 128)


class Branch(NamedTuple):
    """What the columns of a low-rank branch are made of: `kernels.rows.operands.columns_of`.

    Attributes
    ----------
    up : tensor of shape (N, R)
        R a power of two from 16.
    column_scale : float32 tensor of shape (N,)
    balance : float32 tensor of shape (R,)
    """

    up: Tensor
    column_scale: Tensor
    balance: Tensor


def expand(
    packed: Tensor,
    fine: Tensor,
    k: int,
    group: int = 64,
    signed: bool = True,
    tail: Tensor | None = None,
    least: int = -9,
    path: paths.Path = "auto",
    config: Config | None = None,
    branch: Branch | None = None,
) -> paths.Result:
    """Decode a weight to an operand of `kernels.products.gemm`.

    Parameters
    ----------
    packed : uint8 tensor of shape (N, ceil(K / 2))
    fine : int8 or uint8 tensor of shape (N, ceil(K / group))
        int8: exponents of two, and the operand is float8_e4m3fn; uint8: integers, and it is int8.
    k : int
    group : int
        16, 32, 64 or 128.
    signed : bool
    tail : float8_e4m3fn tensor of shape (N, T), optional
        T a power of two.
    least : int
        Least exponent that occurs in `fine`, if known: from -6 up a faster way is taken.
    path : str in {"auto", "reference", "triton"}
    config : Config, optional
    branch : Branch, optional
        In place of `tail`: what those columns are made of, so that they need not be held.

    Returns
    -------
    paths.Result
        ``value`` of shape (N, K_pad + T).
    """
    _check(packed, fine, k, group, tail)
    up, column, balance = branch or (None, None, None)
    _check_branch(packed, fine, tail, branch)
    if paths.choose(path, packed, paths.FLOAT8 if fine.dtype == torch.int8 else (8, 0)) == "reference":
        made = tail if branch is None else columns_of(*branch)
        return paths.Result(reference(packed, fine, k, group, signed, made), "reference")
    arguments = (packed, fine, k, group, signed, tail, up, column, balance, least)
    return paths.Result(
        _expand_op(*arguments) if config is None else on_its_device(_run)(*arguments, config), "triton"
    )


def _empty(
    packed: Tensor, fine: Tensor, k: int, group: int, signed: bool, tail: Tensor | None, up: Tensor | None,
    column: Tensor | None, balance: Tensor | None, least: int,
) -> Tensor:  # fmt: skip
    dtype = torch.float8_e4m3fn if fine.dtype == torch.int8 else torch.int8
    more = 0 if up is None else 4 * up.shape[1]
    more = more if tail is None else tail.shape[1]
    return packed.new_empty(packed.shape[0], padded_columns(k) + more, dtype=dtype)


@operation(
    "expand",
    "(Tensor packed, Tensor fine, int k, int group, bool signed, Tensor? tail, Tensor? up, "
    "Tensor? column, Tensor? balance, int least) -> Tensor",
    _empty,
)
def _expand_op(
    packed: Tensor, fine: Tensor, k: int, group: int, signed: bool, tail: Tensor | None, up: Tensor | None,
    column: Tensor | None, balance: Tensor | None, least: int,
) -> Tensor:  # fmt: skip
    return _run(packed, fine, k, group, signed, tail, up, column, balance, least, None)


def _run(
    packed: Tensor, fine: Tensor, k: int, group: int, signed: bool, tail: Tensor | None, up: Tensor | None,
    column: Tensor | None, balance: Tensor | None, least: int, config: Config | None,
) -> Tensor:  # fmt: skip
    from kernels.products.expand_kernels import launch

    out = _empty(packed, fine, k, group, signed, tail, up, column, balance, least)
    n = packed.shape[0]
    if n and k:
        config = config or lookup("expand", (n, k), packed.device)
        launch(
            packed, fine, out, tail, up, column, balance, k, padded_columns(k), group, signed, least, config
        )
    return out


def reference(packed: Tensor, fine: Tensor, k: int, group: int, signed: bool, tail: Tensor | None) -> Tensor:
    """Plain torch, any device."""
    codes = packing.unpack(packed, 4, k, signed)
    scale = fine.repeat_interleave(group, dim=1)[:, :k].to(torch.int32)
    if fine.dtype == torch.int8:
        out = torch.ldexp(codes.float(), scale).to(torch.float8_e4m3fn)
    else:
        out = (codes.to(torch.int32) * scale).to(torch.int8)
    out = torch.nn.functional.pad(out.view(torch.uint8), (0, padded_columns(k) - k))
    if tail is not None:
        out = torch.cat([out, tail.view(torch.uint8)], 1)
    return out.view(torch.float8_e4m3fn if fine.dtype == torch.int8 else torch.int8)


def _check(packed: Tensor, fine: Tensor, k: int, group: int, tail: Tensor | None) -> None:
    n = packed.shape[0] if packed.ndim == 2 else 0
    if packed.ndim != 2 or packed.dtype != torch.uint8 or packed.shape[1] != packing.packed_bytes(k, 4):
        raise ValueError(
            f"expand: K = {k} takes uint8 codes of shape (N, {packing.packed_bytes(k, 4)}), "
            f"got {tuple(packed.shape)} {packed.dtype}"
        )
    if group not in GROUPS:
        raise ValueError(f"expand: groups of 16, 32, 64 or 128, got {group}")
    if fine.dtype not in (torch.int8, torch.uint8) or tuple(fine.shape) != (n, -(-k // group)):
        raise ValueError(
            f"expand: fine scales must be int8 or uint8 of shape ({n}, {-(-k // group)}), "
            f"got {tuple(fine.shape)} {fine.dtype}"
        )
    if tail is not None and (
        fine.dtype != torch.int8 or tail.shape[0] != n or tail.dtype != torch.float8_e4m3fn
    ):
        raise ValueError(f"expand: tail must be float8_e4m3fn of shape ({n}, T) beside int8 exponents")
    if tail is not None and (tail.ndim != 2 or tail.shape[1].bit_count() != 1):
        raise ValueError(f"expand: tail has a power of two of columns, got {tuple(tail.shape)}")
    if not (packed.is_contiguous() and fine.is_contiguous() and (tail is None or tail.is_contiguous())):
        raise ValueError("expand: packed codes, fine scales and tail must be contiguous")
    paths.check_device("expand", packed, fine, tail)


def _check_branch(packed: Tensor, fine: Tensor, tail: Tensor | None, branch: Branch | None) -> None:
    if branch is None:
        return
    up, column, balance = branch
    n, r = packed.shape[0], up.shape[-1]
    if tail is not None or fine.dtype != torch.int8:
        raise ValueError("expand: a branch is given beside int8 exponents, and no tail with it")
    if tuple(up.shape) != (n, r) or r != padded_rank(r) or not up.is_contiguous():
        raise ValueError(
            f"expand: up must be a contiguous ({n}, R), R a power of two from 16, got {tuple(up.shape)}"
        )
    for name, vector, size in (("column_scale", column, n), ("balance", balance, r)):
        if tuple(vector.shape) != (size,) or vector.dtype != torch.float32 or not vector.is_contiguous():
            raise ValueError(
                f"expand: {name} must be a contiguous float32 ({size},), "
                f"got {tuple(vector.shape)} {vector.dtype}"
            )
    paths.check_device("expand", packed, up, column, balance)
