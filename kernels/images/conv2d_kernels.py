"""Triton kernels of `conv2d`: implicit matrix products over channels-last images.

`_conv_copied` moves boxes of pixels with the copy engine: a tap of the kernel is the same box, shifted, and
what lies outside the image arrives as zero. That needs stride 1. `_conv` gathers pixels through pointers and
takes any stride, padding and kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.tuned.configs import Config
from kernels.tuned.launching import allow_descriptors, shared_memory, within


@triton.jit
def _finished(total, unit, column_ptr, bias_ptr, columns, N, HAS_BIAS: tl.constexpr):
    inside = columns < N
    out = (
        total.to(tl.float32) * unit[:, None] * tl.load(column_ptr + columns, mask=inside, other=0.0)[None, :]
    )
    if HAS_BIAS:
        out += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    return out


@triton.jit
def _conv_copied(
    x_ptr, w_ptr, out_ptr, sample_ptr, column_ptr, bias_ptr, B, H, W, C, N, OH, OW, pad_h, pad_w,
    KH: tl.constexpr, KW: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    whole: tl.constexpr = x_ptr.dtype.element_ty == tl.int8
    sum_type: tl.constexpr = tl.int32 if whole else tl.float32
    BM: tl.constexpr = TH * TW
    boxes_w = tl.cdiv(OW, TW)
    boxes_h = tl.cdiv(OH, TH)
    tiles = tl.cdiv(N, BN)  # one axis of the grid for both, as the others end at 65535
    box = tl.program_id(0) // tiles
    sample = box // (boxes_h * boxes_w)
    h0 = (box // boxes_w) % boxes_h * TH
    w0 = box % boxes_w * TW
    column0 = tl.program_id(0) % tiles * BN
    x_desc = tl.make_tensor_descriptor(x_ptr, [B, H, W, C], [H * W * C, W * C, C, 1], [1, TH, TW, BK])
    w_desc = tl.make_tensor_descriptor(w_ptr, [N, KH * KW * C], [KH * KW * C, 1], [BN, BK])
    out_desc = tl.make_tensor_descriptor(
        out_ptr, [B, OH, OW, N], [OH * OW * N, OW * N, N, 1], [1, TH, TW, BN]
    )
    total = tl.zeros((BM, BN), sum_type)
    depth = tl.cdiv(C, BK)
    for step in range(KH * KW * depth):
        tap = step // depth
        c0 = step % depth * BK
        x = x_desc.load([sample, h0 + tap // KW - pad_h, w0 + tap % KW - pad_w, c0])
        x = tl.reshape(x, (BM, BK))
        w = w_desc.load([column0, tap * C + c0])
        total = tl.dot(x, w.T, total, out_dtype=sum_type)
    columns = column0 + tl.arange(0, BN)
    unit = tl.load(sample_ptr + sample) + tl.zeros((BM,), tl.float32)
    out = _finished(total, unit, column_ptr, bias_ptr, columns, N, HAS_BIAS)
    out_desc.store([sample, h0, w0, column0], tl.reshape(out.to(out_ptr.dtype.element_ty), (1, TH, TW, BN)))


@triton.jit
def _conv(
    x_ptr, w_ptr, out_ptr, sample_ptr, column_ptr, bias_ptr, H, W, C, N, OH, OW, pixels, stride_h, stride_w,
    pad_h, pad_w, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    whole: tl.constexpr = x_ptr.dtype.element_ty == tl.int8
    sum_type: tl.constexpr = tl.int32 if whole else tl.float32
    tiles = tl.cdiv(N, BN)
    pixel = tl.program_id(0) // tiles * BM + tl.arange(0, BM)
    inside = pixel < pixels
    sample = pixel // (OH * OW)
    at_h = (pixel // OW) % OH * stride_h - pad_h
    at_w = pixel % OW * stride_w - pad_w
    columns = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), sum_type)
    depth = tl.cdiv(C, BK)
    for step in range(KH * KW * depth):
        tap = step // depth
        c = step % depth * BK + tl.arange(0, BK)
        h = at_h + tap // KW * dilation_h
        w = at_w + tap % KW * dilation_w
        there = inside & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        x_at = ((sample * H + h) * W + w).to(tl.int64) * C
        x = tl.load(x_ptr + x_at[:, None] + c[None, :], mask=there[:, None] & (c < C)[None, :], other=0.0)
        w_at = columns.to(tl.int64)[:, None] * (KH * KW * C) + (tap * C + c)[None, :]
        weight = tl.load(w_ptr + w_at, mask=(columns < N)[:, None] & (c < C)[None, :], other=0.0)
        total = tl.dot(x, weight.T, total, out_dtype=sum_type)
    unit = tl.load(sample_ptr + sample, mask=inside, other=0.0)
    out = _finished(total, unit, column_ptr, bias_ptr, columns, N, HAS_BIAS)
    out_at = pixel.to(tl.int64)[:, None] * N + columns[None, :]
    tl.store(
        out_ptr + out_at, out.to(out_ptr.dtype.element_ty), mask=inside[:, None] & (columns < N)[None, :]
    )


def launch(
    x: Tensor, weight: Tensor, sample_scale: Tensor, column_scale: Tensor, bias: Tensor | None, out: Tensor,
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], config: Config,
) -> None:  # fmt: skip
    """Run a kernel into `out` (B, OH, OW, N); see `kernels.images.conv2d`. `x` is (B, H, W, C)."""
    (b, h, w, c), (n, kh, kw, _), (_, oh, ow, _) = x.shape, weight.shape, out.shape
    common = (sample_scale, column_scale, sample_scale if bias is None else bias)
    config = within(config, out.element_size(), shared_memory(x.device), halving=False)
    columns = triton.cdiv(n, config.block_n)
    options = {"HAS_BIAS": bias is not None, "num_warps": config.warps, "num_stages": config.stages}
    box_h, box_w = box(oh, ow, config.block_m)
    if copied(x, weight, out, stride, dilation, config) and box_w >= 8:
        allow_descriptors()
        boxes = b * triton.cdiv(oh, box_h) * triton.cdiv(ow, box_w)
        _conv_copied[(columns * boxes,)](
            x, weight, out, *common, b, h, w, c, n, oh, ow, *padding,
            KH=kh, KW=kw, TH=box_h, TW=box_w, BN=config.block_n, BK=config.block_k, **options,
        )  # fmt: skip
        return
    _conv[(columns * triton.cdiv(b * oh * ow, config.block_m),)](
        x, weight, out, *common, h, w, c, n, oh, ow, b * oh * ow, *stride, *padding, *dilation,
        KH=kh, KW=kw, BM=config.block_m, BN=config.block_n, BK=config.block_k, **options,
    )  # fmt: skip


def box(height: int, width: int, pixels: int) -> tuple[int, int]:
    """Box of `pixels` neighbouring pixels that wastes least of an image of this size."""
    sizes = [(pixels >> power, 1 << power) for power in range(pixels.bit_length())]
    return min(sizes, key=lambda s: (triton.cdiv(height, s[0]) * triton.cdiv(width, s[1]), abs(s[0] - s[1])))


def copied(
    x: Tensor, weight: Tensor, out: Tensor, stride: tuple[int, int], dilation: tuple[int, int], config: Config
) -> bool:
    """Whether the copy engine can walk these images."""
    rows = x.shape[3] % 16 == 0 and out.shape[3] * out.element_size() % 16 == 0
    first = all(tensor.data_ptr() % 16 == 0 for tensor in (x, weight))
    return stride == (1, 1) and dilation == (1, 1) and rows and first and not config.keep
