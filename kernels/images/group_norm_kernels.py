"""Triton kernels of `group_norm`: statistics of channels in boxes of pixels, merged by group."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 128
CHANNELS = 64
BOXES = 1024
"""Boxes whose means are merged at once."""


@triton.jit
def _boxes(x_ptr, mean_ptr, spread_ptr, HW, C, boxes, BP: tl.constexpr, BC: tl.constexpr):
    sample = tl.program_id(0) // boxes  # one axis of the grid for both, as the others end at 65535
    box = tl.program_id(0) % boxes
    first = box * BP
    pixel = first + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    inside = channel < C
    mask = (pixel < HW)[:, None] & inside[None, :]
    at = (sample.to(tl.int64) * HW + pixel)[:, None] * C + channel[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    count = tl.minimum(HW - first, BP).to(tl.float32)
    mean = tl.sum(x, 0) / count
    away = tl.where(mask, x - mean[None, :], 0.0)
    out = (sample * boxes + box) * C + channel
    tl.store(mean_ptr + out, mean, mask=inside)
    tl.store(spread_ptr + out, tl.sum(away * away, 0), mask=inside)


@triton.jit
def _merging(
    mean_ptr, first, sample, channel, inside, HW, C, boxes, BP: tl.constexpr, BB: tl.constexpr
):  # fmt: skip
    """Means of some boxes, how many pixels they have, which are there, and where their spreads lie."""
    box = first + tl.arange(0, BB)
    mask = (box < boxes)[:, None] & inside[None, :]
    at = (sample * boxes + box)[:, None] * C + channel[None, :]
    count = tl.minimum(tl.maximum(HW - box * BP, 0), BP).to(tl.float32)
    return tl.load(mean_ptr + at, mask=mask, other=0.0), count, mask, at


@triton.jit
def _merge(
    mean_ptr, spread_ptr, weight_ptr, bias_ptr, gain_ptr, offset_ptr, HW, C, size, boxes, eps,
    BP: tl.constexpr, BB: tl.constexpr, BC: tl.constexpr, HAS_WEIGHT: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0)
    group = tl.program_id(1)
    channel = group * size + tl.arange(0, BC)
    inside = tl.arange(0, BC) < size
    total = (HW * size).to(tl.float32)
    middle = 0.0
    for first in range(0, boxes, BB):
        mean, count, mask, _ = _merging(mean_ptr, first, sample, channel, inside, HW, C, boxes, BP, BB)
        middle += tl.sum(tl.sum(mean * count[:, None], 0), 0)
    middle = middle / total
    variance = 0.0
    for first in range(0, boxes, BB):
        mean, count, mask, at = _merging(mean_ptr, first, sample, channel, inside, HW, C, boxes, BP, BB)
        spread = tl.load(spread_ptr + at, mask=mask, other=0.0)
        away = tl.where(mask, mean - middle, 0.0)
        variance += tl.sum(tl.sum(spread + away * away * count[:, None], 0), 0)
    variance = variance / total
    slope = 1.0 / tl.sqrt(variance + eps)
    gain = tl.zeros((BC,), tl.float32) + slope
    offset = tl.zeros((BC,), tl.float32) - middle * slope
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
        gain = gain * weight
        offset = offset * weight + tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(gain_ptr + sample * C + channel, gain, mask=inside)
    tl.store(offset_ptr + sample * C + channel, offset, mask=inside)


@triton.jit
def _largest(
    x_ptr, gain_ptr, offset_ptr, peak_ptr, HW, C, BP: tl.constexpr, BC: tl.constexpr, SILU: tl.constexpr
):
    boxes = tl.cdiv(HW, BP)
    sample = tl.program_id(0) // boxes
    pixel = tl.program_id(0) % boxes * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (pixel < HW)[:, None] & (channel < C)[None, :]
    at = (sample.to(tl.int64) * HW + pixel)[:, None] * C + channel[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0)
    own = sample * C + channel[None, :] + tl.zeros((BP, BC), tl.int32)
    y = x.to(tl.float32) * tl.load(gain_ptr + own, mask=mask, other=0.0)
    y = y + tl.load(offset_ptr + own, mask=mask, other=0.0)
    if SILU:
        y = y * tl.sigmoid(y)
    y = tl.where(mask, y, 0.0).to(x.dtype).to(tl.float32)
    bits = y.to(tl.int32, bitcast=True) & 0x7FFFFFFF  # NaN is the largest of all
    tl.atomic_max(peak_ptr + sample, tl.max(tl.max(bits, 1), 0))


def statistics(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    gain: Tensor,
    offset: Tensor,
) -> None:
    """Write gain and offset (B, C) of a group norm of `x` (B, HW, C)."""
    b, hw, c = x.shape
    boxes = triton.cdiv(hw, PIXELS)
    mean = torch.empty(2, b, boxes, c, dtype=torch.float32, device=x.device)
    _boxes[(boxes * b, triton.cdiv(c, CHANNELS))](
        x, mean[0], mean[1], hw, c, boxes, BP=PIXELS, BC=CHANNELS, num_warps=8
    )
    size = c // groups
    _merge[(b, groups)](
        mean[0], mean[1], x if weight is None else weight, x if bias is None else bias, gain, offset, hw, c,
        size,
        boxes, eps, BP=PIXELS, BB=min(BOXES, triton.next_power_of_2(boxes)), BC=triton.next_power_of_2(size),
        HAS_WEIGHT=weight is not None, num_warps=4,
    )  # fmt: skip


def largest(x: Tensor, gain: Tensor, offset: Tensor, silu: bool) -> Tensor:
    """Largest value of each sample after gain, offset and SiLU, float32 of shape (B,)."""
    b, hw, c = x.shape
    peak = torch.zeros(b, dtype=torch.int32, device=x.device)
    grid = (triton.cdiv(hw, PIXELS) * b, triton.cdiv(c, CHANNELS))
    _largest[grid](x, gain, offset, peak, hw, c, BP=PIXELS, BC=CHANNELS, SILU=silu, num_warps=8)
    return peak.view(torch.float32)
