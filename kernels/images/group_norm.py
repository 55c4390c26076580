"""Group norm before quantization: its statistics as a gain and an offset, and the largest value after it.

    gain_bc = weight_c / sqrt(variance_bg + eps),   offset_bc = bias_c - mean_bg gain_bc

`kernels.rows.quantize` with ``Before("affine_silu", gain, offset, rows=H W)`` then writes codes without the
16-bit result ever being written: 2 + 2 + 1 bytes an element (4 + 1 with a scale an image) for the 13 of
norm, SiLU and quantization one after the other. Means and spreads are merged exactly (Chan), never as
differences of squares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import paths
from kernels.registered import operation
from kernels.rows.before import Before


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    silu: bool = True,
    path: paths.Path = "auto",
) -> Before:
    """Find what a group norm does to each channel.

    Parameters
    ----------
    x : bfloat16, float16 or float32 tensor of shape (B, HW, C)
        Contiguous: images with channels last.
    groups : int
        Divides C.
    weight, bias : tensors of shape (C,), optional
        Both or neither.
    eps : float
    silu : bool
        Whether a SiLU follows.
    path : str in {"auto", "reference", "triton"}

    Returns
    -------
    Before
        For `kernels.rows.quantize` of ``x.flatten(0, 1)``.
    """
    if x.ndim != 3 or not x.is_contiguous() or x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ValueError(
            f"group_norm: x must be a contiguous float (B, HW, C), got {tuple(x.shape)} {x.dtype}"
        )
    if groups < 1 or x.shape[2] % groups or not x.shape[1]:
        raise ValueError(
            f"group_norm: {x.shape[2]} channels of {x.shape[1]} pixels do not fall into {groups} groups"
        )
    if (weight is None) != (bias is None) or (weight is not None and weight.shape != x.shape[2:]):
        raise ValueError(
            f"group_norm: weight and bias must both have shape ({x.shape[2]},), or neither be given"
        )
    paths.check_contiguous("group_norm", weight=weight, bias=bias)
    paths.check_device("group_norm", x, weight, bias)
    run = reference if paths.choose(path, x) == "reference" else _group_norm_op
    gain, offset = run(x, groups, weight, bias, eps)
    return Before("affine_silu" if silu else "affine", gain, offset, x.shape[1], eps)


def reference(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Plain torch, in float64."""
    b, hw, c = x.shape
    grouped = x.double().reshape(b, hw, groups, c // groups)
    mean = grouped.mean((1, 3))
    slope = ((grouped - mean[:, None, :, None]).square().mean((1, 3)) + eps).rsqrt()
    gain = slope.repeat_interleave(c // groups, 1) * (1 if weight is None else weight.double())
    offset = (0 if bias is None else bias.double()) - mean.repeat_interleave(c // groups, 1) * gain
    return gain.float().contiguous(), offset.float().contiguous()


def sample_scale(x: Tensor, before: Before, top: int, path: paths.Path = "auto") -> Tensor:
    """Scale of each image, (B,) float32: its largest value after `before`, over the largest code `top`.

    An image of zeros gets scale 1; one that holds a NaN gets NaN.
    """
    if before.kind not in ("affine", "affine_silu") or before.gain is None or before.offset is None:
        raise ValueError(f"sample_scale: before must come from group_norm, got {before.kind}")
    if x.ndim != 3 or not x.is_contiguous() or tuple(before.gain.shape) != (x.shape[0], x.shape[2]):
        raise ValueError(
            f"sample_scale: x must be the contiguous (B, HW, C) that group_norm saw, got {tuple(x.shape)} "
            f"and gains of shape {tuple(before.gain.shape)}"
        )
    if paths.choose(path, x) == "reference":
        value = before.reference(x.flatten(0, 1)).abs().reshape(x.shape).amax((1, 2)).float()
    else:
        value = _largest_op(x, before.gain, before.offset, before.kind == "affine_silu")
    unit = value / torch.full_like(value, top)
    return torch.where(unit < torch.finfo(torch.float32).tiny, torch.ones_like(unit), unit)


def _empty(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    return tuple(x.new_empty(x.shape[0], x.shape[2], dtype=torch.float32) for _ in range(2))  # type: ignore[return-value]


@operation(
    "group_norm",
    "(Tensor x, int groups, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor)",
    _empty,
)
def _group_norm_op(
    x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    from kernels.images.group_norm_kernels import statistics

    gain, offset = _empty(x, groups, weight, bias, eps)
    if x.numel():
        statistics(x, groups, weight, bias, eps, gain, offset)
    return gain, offset


@operation(
    "largest",
    "(Tensor x, Tensor gain, Tensor offset, bool silu) -> Tensor",
    lambda x, gain, offset, silu: x.new_empty(x.shape[0], dtype=torch.float32),
)
def _largest_op(x: Tensor, gain: Tensor, offset: Tensor, silu: bool) -> Tensor:
    from kernels.images.group_norm_kernels import largest

    return largest(x, gain, offset, silu)
