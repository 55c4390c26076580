"""Packed 4-bit codes times their scales as the weight that they stand for, in 16 or 32 bits.

    out_nk = code_nk (scale_ng column_n),     g = floor(k / group)

For inputs that stay as they are and have more than a few rows: the product is then torch's own. The numbers
are those of a simulated layer: scales multiplied in float32, one rounding to the type of the result.

Layout: row-major, two codes a byte, even k in the low nibble, two's complement; the last group may be
incomplete. Reads N K / 2 bytes, writes N K elements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import packing, paths
from kernels.products.few_rows import SCALES
from kernels.registered import on_its_device, operation
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

TYPES = (torch.bfloat16, torch.float16, torch.float32)
LEAST_GROUP = 32


def expand_half(
    packed: Tensor,
    scale: Tensor,
    k: int,
    group: int,
    column_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
    path: paths.Path = "auto",
    config: Config | None = None,
) -> paths.Result:
    """Decode a weight.

    Parameters
    ----------
    packed : uint8 tensor of shape (N, ceil(K / 2))
    scale : tensor of shape (N, ceil(K / group))
        Real group scales in bfloat16, float16 or float32; or fine ones of two levels: int8 exponents of two,
        uint8 integers.
    k : int
    group : int
        A power of two from 32.
    column_scale : float32 tensor of shape (N,), optional
        Coarse scale of two levels.
    dtype : torch.dtype
        Of the result: bfloat16, float16 or float32.
    path : str in {"auto", "reference", "triton"}
    config : Config, optional

    Returns
    -------
    paths.Result
        ``value`` of shape (N, K).
    """
    _check(packed, scale, k, group, column_scale, dtype)
    if paths.choose(path, packed) == "reference":
        return paths.Result(reference(packed, scale, k, group, column_scale, dtype), "reference")
    arguments = (packed, scale, k, group, column_scale, dtype)
    return paths.Result(
        _expand_half_op(*arguments) if config is None else on_its_device(_run)(*arguments, config), "triton"
    )


def reference(
    packed: Tensor, scale: Tensor, k: int, group: int, column_scale: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Plain torch, any device."""
    real = torch.exp2(scale.float()) if scale.dtype == torch.int8 else scale.float()
    if column_scale is not None:
        real = real * column_scale[:, None]
    codes = packing.unpack(packed, 4, k, signed=True)
    return (codes.float() * real.repeat_interleave(group, 1)[:, :k]).to(dtype)


def _empty(
    packed: Tensor, scale: Tensor, k: int, group: int, column_scale: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return packed.new_empty(packed.shape[0], k, dtype=dtype)


@operation(
    "expand_half",
    "(Tensor packed, Tensor scale, int k, int group, Tensor? column_scale, ScalarType dtype) -> Tensor",
    _empty,
)
def _expand_half_op(
    packed: Tensor, scale: Tensor, k: int, group: int, column_scale: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return _run(packed, scale, k, group, column_scale, dtype, None)


def _run(
    packed: Tensor, scale: Tensor, k: int, group: int, column_scale: Tensor | None, dtype: torch.dtype,
    config: Config | None,
) -> Tensor:  # fmt: skip
    from kernels.products.expand_kernels import launch_half

    out = _empty(packed, scale, k, group, column_scale, dtype)
    if out.numel():
        launch_half(
            packed, scale, column_scale, out, group, config or lookup("expand", out.shape, packed.device)
        )
    return out


def _check(
    packed: Tensor, scale: Tensor, k: int, group: int, column_scale: Tensor | None, dtype: torch.dtype
) -> None:
    n = packed.shape[0] if packed.ndim == 2 else 0
    if packed.ndim != 2 or packed.dtype != torch.uint8 or packed.shape[1] != packing.packed_bytes(k, 4):
        raise ValueError(
            f"expand_half: K = {k} takes uint8 codes of shape (N, {packing.packed_bytes(k, 4)}), "
            f"got {tuple(packed.shape)} {packed.dtype}"
        )
    if group < LEAST_GROUP or group & (group - 1):
        raise ValueError(f"expand_half: groups of a power of two from {LEAST_GROUP}, got {group}")
    if scale.dtype not in SCALES or tuple(scale.shape) != (n, -(-k // group)):
        raise ValueError(
            f"expand_half: scales must be int8, uint8, bfloat16, float16 or float32 of shape "
            f"({n}, {-(-k // group)}), got {tuple(scale.shape)} {scale.dtype}"
        )
    if column_scale is not None and (
        tuple(column_scale.shape) != (n,) or column_scale.dtype != torch.float32
    ):
        raise ValueError(
            f"expand_half: column_scale must be float32 ({n},), "
            f"got {tuple(column_scale.shape)} {column_scale.dtype}"
        )
    if dtype not in TYPES:
        raise ValueError(f"expand_half: writes bfloat16, float16 or float32, got {dtype}")
    if not all(t is None or t.is_contiguous() for t in (packed, scale, column_scale)):
        raise ValueError("expand_half: packed codes and scales must be contiguous")
    paths.check_device("expand_half", packed, scale, column_scale)
