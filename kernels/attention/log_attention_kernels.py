"""Triton kernels of `log_attention`: the scale of an image needs every probability first, hence two walks.

1. `_scan` keeps, for each query, the largest logit, the sum of exponentials and the largest logit beside the
sink's,
   and raises the image's largest probability (as bits, whose maximum does not depend on the order).
2. `_attend` makes the logits again, rounds their probabilities to powers of two, which 16-bit numbers hold
exactly,
   and multiplies them by the values; the scale meets the finished sum, and the sink's column is a term of
   its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import paths
from kernels.tuned.configs import Config
from kernels.tuned.dots import half_dot

ABSENT = -1
"""Column of the sink where there is none."""


@triton.jit
def _logits(
    q,
    k_ptr,
    columns,
    channels,
    stride,
    keys,
    D,
    factor,
    q_unit,
    k_unit_ptr,
    WIDE: tl.constexpr,
    BQ: tl.constexpr,
    BK: tl.constexpr,
    FLOAT8: tl.constexpr,
):
    mask = (columns < keys)[:, None] & (channels < D)[None, :]
    k = tl.load(k_ptr + columns.to(tl.int64)[:, None] * stride + channels[None, :], mask=mask, other=0.0)
    logits = half_dot(q, k.T, tl.zeros((BQ, BK), tl.float32), WIDE) * factor
    if FLOAT8:
        unit = tl.load(k_unit_ptr + columns, mask=columns < keys, other=0.0)
        logits = logits * q_unit[:, None] * unit[None, :]
    return tl.where((columns < keys)[None, :], logits, float("-inf"))


@triton.jit
def _scan(
    q_ptr, k_ptr, most_ptr, sum_ptr, peak_ptr, q_unit_ptr, k_unit_ptr, queries, keys, D, heads,
    q_batch, q_head, q_stride, k_batch, k_head, k_stride, factor, sink,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
    FLOAT8: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    rows = tl.program_id(0) * BQ + tl.arange(0, BQ)
    channels = tl.arange(0, BD)
    mask = (rows < queries)[:, None] & (channels < D)[None, :]
    q_base = q_ptr + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    k_base = k_ptr + batch.to(tl.int64) * k_batch + head.to(tl.int64) * k_head
    q = tl.load(q_base + rows.to(tl.int64)[:, None] * q_stride + channels[None, :], mask=mask, other=0.0)
    q_unit = tl.full((BQ,), 1.0, tl.float32)
    k_unit_at = k_unit_ptr + tl.program_id(1) * keys
    if FLOAT8:
        q_unit = tl.load(q_unit_ptr + tl.program_id(1) * queries + rows, mask=rows < queries, other=1.0)
    most = tl.full((BQ,), float("-inf"), tl.float32)
    beside = tl.full((BQ,), float("-inf"), tl.float32)
    total = tl.zeros((BQ,), tl.float32)
    for start in range(0, keys, BK):
        columns = start + tl.arange(0, BK)
        logits = _logits(
            q, k_base, columns, channels, k_stride, keys, D, factor, q_unit, k_unit_at, WIDE, BQ, BK, FLOAT8
        )
        new = tl.maximum(most, tl.max(logits, 1))
        total = total * tl.exp(most - new) + tl.sum(tl.exp(logits - new[:, None]), 1)
        most = new
        beside = tl.maximum(beside, tl.max(tl.where((columns == sink)[None, :], float("-inf"), logits), 1))
    at = tl.program_id(1) * queries + rows
    tl.store(most_ptr + at, most, mask=rows < queries)
    tl.store(sum_ptr + at, total, mask=rows < queries)
    largest = tl.where(rows < queries, tl.exp(beside - most) / total, 0.0)
    bits = largest.to(tl.int32, bitcast=True) & 0x7FFFFFFF  # NaN is the largest of all
    tl.atomic_max(peak_ptr + batch, tl.max(bits, 0))


@triton.jit
def _attend(
    q_ptr, k_ptr, v_ptr, out_ptr, most_ptr, sum_ptr, peak_ptr, q_unit_ptr, k_unit_ptr, v_unit_ptr,
    queries, keys, D, DV, heads,
    q_batch, q_head, q_stride, k_batch, k_head, k_stride, v_batch, v_head, v_stride, v_channel, factor,
    sink, step,
    LAST: tl.constexpr, KEEP_SUMS: tl.constexpr, HAS_SINK: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, WIDE: tl.constexpr,
    FLOAT8: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    rows = tl.program_id(0) * BQ + tl.arange(0, BQ)
    channels = tl.arange(0, BD)
    out_channels = tl.arange(0, BV)
    inside = rows < queries
    q_base = q_ptr + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
    k_base = k_ptr + batch.to(tl.int64) * k_batch + head.to(tl.int64) * k_head
    v_base = v_ptr + batch.to(tl.int64) * v_batch + head.to(tl.int64) * v_head
    mask = inside[:, None] & (channels < D)[None, :]
    q = tl.load(q_base + rows.to(tl.int64)[:, None] * q_stride + channels[None, :], mask=mask, other=0.0)
    at = tl.program_id(1) * queries + rows
    q_unit = tl.full((BQ,), 1.0, tl.float32)
    k_unit_at = k_unit_ptr + tl.program_id(1) * keys
    if FLOAT8:
        q_unit = tl.load(q_unit_ptr + at, mask=inside, other=1.0)
    most = tl.load(most_ptr + at, mask=inside, other=0.0)
    total = tl.load(sum_ptr + at, mask=inside, other=1.0)
    peak = tl.load(peak_ptr + batch)
    unit = tl.where(peak < 1.1754943508222875e-38, 1.0, peak)
    # log2 of a probability over the image's largest, straight from the logit
    level = most * 1.4426950408889634 + tl.log2(total) + tl.log2(unit)
    out = tl.zeros((BQ, BV), tl.float32)
    kept = tl.zeros((BQ,), tl.float32)
    sunk = tl.full((BQ,), float("-inf"), tl.float32)
    for start in range(0, keys, BK):
        columns = start + tl.arange(0, BK)
        logits = _logits(
            q, k_base, columns, channels, k_stride, keys, D, factor, q_unit, k_unit_at, WIDE, BQ, BK, FLOAT8
        )
        down = (level[:, None] - logits * 1.4426950408889634) / step
        code = tl.floor(tl.minimum(tl.maximum(down, 0.0), LAST) + 0.5)
        near = code - tl.minimum(tl.maximum(down, 0.0), LAST)
        code = tl.where(
            (near == 0.5) & (code - 2.0 * tl.floor(code * 0.5) == 1.0), code - 1.0, code
        )  # half to even
        used = (columns < keys)[None, :]
        if HAS_SINK:
            is_sink = (columns == sink)[None, :]
            sunk = tl.maximum(sunk, tl.max(tl.where(is_sink, logits, float("-inf")), 1))
            used = used & (columns != sink)[None, :]
        p = tl.where(used, tl.exp2(-code * step), 0.0)
        if KEEP_SUMS:
            kept += tl.sum(p, 1)
        v_mask = (columns < keys)[:, None] & (out_channels < DV)[None, :]
        v_at = columns.to(tl.int64)[:, None] * v_stride + out_channels[None, :].to(tl.int64) * v_channel
        v = tl.load(v_base + v_at, mask=v_mask, other=0.0)
        if FLOAT8:
            out = half_dot((p * 256.0).to(v.dtype), v, out, WIDE)  # 2^8 .. 2^-7, exact
        else:
            out = half_dot(p.to(v.dtype), v, out, WIDE)
    v_unit = tl.full((BV,), 1.0, tl.float32)
    if FLOAT8:
        v_unit = tl.load(v_unit_ptr + tl.program_id(1) * DV + out_channels, mask=out_channels < DV, other=0.0)
        out = out * (v_unit * 0.00390625)[None, :]
    at_sink = tl.exp(sunk - most) / total
    if KEEP_SUMS:
        rest = 1.0 - at_sink if HAS_SINK else 1.0
        out = out * (rest / tl.maximum(kept, 1.1754943508222875e-38))[:, None]
    else:
        out = out * unit
    if HAS_SINK:
        v_at = sink * v_stride + out_channels.to(tl.int64) * v_channel
        v = tl.load(v_base + v_at, mask=out_channels < DV, other=0.0)
        out += at_sink[:, None] * (v.to(tl.float32) * v_unit)[None, :]
    out = tl.where((peak != peak), peak, out)  # a NaN anywhere in an image is one everywhere
    out_at = at.to(tl.int64)[:, None] * DV + out_channels[None, :]
    tl.store(
        out_ptr + out_at,
        out.to(out_ptr.dtype.element_ty),
        mask=inside[:, None] & (out_channels < DV)[None, :],
    )


def launch(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, factor: float, step: float, last: int, sink: int | None,
    keep_sums: bool, config: Config, units: tuple[Tensor, ...] = (),
) -> None:  # fmt: skip
    """Run both kernels into `out` (B, H, Q, DV); see `kernels.attention.log_attention`.

    `units` are the scales of float8 queries, keys and values; none, where they are wider.
    """
    b, h, queries, d = q.shape
    keys, dv = k.shape[2], v.shape[3]
    most, total = (torch.empty(b * h, queries, dtype=torch.float32, device=q.device) for _ in range(2))
    peak = torch.zeros(b, dtype=torch.int32, device=q.device)
    grid = (triton.cdiv(queries, config.block_m), b * h)
    column = ABSENT if sink is None else sink
    wide = paths.INTERPRETED or q.element_size() == 4
    q_unit, k_unit, v_unit = units or (most, most, most)
    options = {
        "FLOAT8": bool(units),
        "BQ": config.block_m, "BK": config.block_n, "BD": max(32 if units else 16, triton.next_power_of_2(d)),
        "WIDE": wide,
        "num_warps": config.warps, "num_stages": config.stages,
    }  # fmt: skip
    _scan[grid](
        q, k, most, total, peak, q_unit, k_unit, queries, keys, d, h, *q.stride()[:3], *k.stride()[:3],
        factor, column, **options,
    )  # fmt: skip
    _attend[grid](
        q, k, v, out, most, total, peak.view(torch.float32), q_unit, k_unit, v_unit, queries, keys, d, dv, h,
        *q.stride()[:3], *k.stride()[:3], *v.stride(), factor, column, step,
        LAST=float(last), KEEP_SUMS=keep_sums, HAS_SINK=sink is not None, BV=max(16,
        triton.next_power_of_2(dv)),
        **options,
    )  # fmt: skip
