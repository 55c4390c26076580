"""Search for the twin-log grid of each row: its top and its step, for each sign."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.formats.grids import Params
from quant.formats.quantizer import DTYPES, Quantizer
from quant.formats.rounding import as_storage

SPANS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 24.0)
"""Octaves between the largest and the smallest magnitude that are tried."""

CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
"""Top over the largest magnitude (the paper's alpha and beta) that are tried."""

_ROWS = 2**21  # weights at a time

ETAS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
PERCENTILES = (0.98, 0.99, 0.999, 0.9999, 0.99999)
"""The released code's grids."""


def fit(weight: Tensor, quantizer: Quantizer) -> Params:
    """Parameters of the twin-log grid with the least squared error, row by row and sign by sign.

    Parameters
    ----------
    weight : tensor of shape (N, ...)
    quantizer : Quantizer
        Of a signed `LogGrid` without fixed octaves, a scale an output channel.

    Returns
    -------
    dict
        scale, scale_negative (tops), step, step_negative (octaves), each of shape (N, 1, ...).

    Notes
    -----
    Everything is relative to the row's largest magnitude, so Q(cW) = c Q(W) exactly for powers of two. Spans
    first with the full top, then tops for the best span and its neighbours.
    """
    rows = weight.detach().float().flatten(1)
    size = max(1, _ROWS // rows.shape[1])
    parts = [
        [_fit_sign(chunk, negative, quantizer) for negative in (False, True)] for chunk in rows.split(size)
    ]
    shape = [-1] + [1] * (weight.ndim - 1)
    tops, steps = ([torch.cat([p[sign][i] for p in parts]).reshape(shape) for sign in (0, 1)] for i in (0, 1))
    return {"scale": tops[0], "scale_negative": tops[1], "step": steps[0], "step_negative": steps[1]}


def _fit_sign(rows: Tensor, negative: bool, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Top and step (N,) of one sign; rows without that sign get the smallest normal number as their top."""
    count, dtype = 2 ** (quantizer.bits - 1), DTYPES[quantizer.scale_dtype]
    mine = rows < 0 if negative else rows >= 0  # zero is coded among the positives
    tiny = torch.finfo(torch.float32).tiny
    magnitude = torch.where(mine, rows.abs(), 0.0)
    largest = magnitude.amax(1, keepdim=True).clamp(min=tiny)
    octave = torch.log2(magnitude.clamp(min=tiny))
    best = torch.full_like(largest, torch.inf)
    best_top, best_span = largest.to(dtype).clone(), torch.full_like(largest, SPANS[0])

    def consider(clip: float, span: Tensor) -> None:
        nonlocal best, best_top, best_span
        top = as_storage((largest * clip).clamp(min=tiny), False, dtype)
        step = (span / (count - 1)).to(dtype).float()
        # the arithmetic of the grid, with the logarithm taken once
        q = torch.round((torch.log2(top.float()) - octave) / step).clamp_(0, count - 1)
        error = torch.where(mine, (torch.exp2(-q * step) * top.float() - magnitude), 0.0)
        total = (error / largest).square_().sum(1, keepdim=True)
        better = total < best
        best = torch.where(better, total, best)
        best_top, best_span = torch.where(better, top, best_top), torch.where(better, span, best_span)

    for span in SPANS:
        consider(1.0, torch.full_like(largest, span))
    centre = best_span
    for clip in CLIPS[1:]:
        for factor in (0.8, 1.0, 1.25):
            consider(clip, centre * factor)
    return best_top.squeeze(1), (best_span / (count - 1)).to(dtype).squeeze(1)


def fit_as_released(weight: Tensor, quantizer: Quantizer) -> Params:
    """Parameters as the released code finds them, cut to 2^b levels.

    ``L = log2(|w| + eta)`` of one sign, with 0 where the other sign is, is quantized uniformly between its
    row's smallest and largest entry (or upper percentile): ``delta = (high - low) / n``, n = 2^(b-1), zero
    point ``z = round(low / delta)``, ``q = clamp(round(L / delta) - z, 0, n - 1)``, magnitude
    ``2^(delta (q + z)) - eta``. The zeros of the other sign count, so `high` is never below log2 1. eta and
    the percentiles are searched for the whole layer; the error is a sum over the signs, so searching the
    percentile of each sign alone finds the best of all 13 x 5 x 5.

    Notes
    -----
    n steps have n + 1 ends, and b bits hold n of them a sign. The released code drops the top for positive
    weights and keeps it for negative ones; here both drop it. So the largest magnitude is a whole step below
    `high`, on either sign.
    """
    rows, count = weight.detach().float().flatten(1), 2 ** (quantizer.bits - 1)
    dtype = DTYPES[quantizer.scale_dtype]
    best, found = torch.inf, {}
    for eta in ETAS:
        offset = torch.full((rows.shape[0], 1), eta, device=rows.device).to(dtype)
        total, params = 0.0, {"offset": offset}
        for suffix, mine in (("", rows > 0), ("_negative", rows < 0)):
            octave = torch.where(mine, torch.log2(rows.abs() + offset.float()), 0.0)
            options = [_released_sign(rows, octave, mine, offset, p, count) for p in PERCENTILES]
            error, params[f"scale{suffix}"], params[f"step{suffix}"] = min(options, key=lambda o: o[0])
            total += error
        if total < best:
            best, found = total, params
    return {name: tensor.reshape([-1] + [1] * (weight.ndim - 1)) for name, tensor in found.items()}


def _released_sign(
    rows: Tensor, octave: Tensor, mine: Tensor, offset: Tensor, percentile: float, count: int
) -> tuple[float, Tensor, Tensor]:
    """Squared error, tops and steps of one sign, one eta, one percentile."""
    rank = round(percentile * (rows.shape[1] - 1))
    high = octave.kthvalue(rank + 1, dim=1, keepdim=True).values
    low = octave.amin(1, keepdim=True)
    # a row without this sign has no range: any step will do
    step = ((high - low) / count).clamp(min=2.0**-10).to(offset.dtype)
    zero = torch.round(low / step.float())
    top = torch.exp2((zero + count - 1) * step.float()).to(offset.dtype)
    # and its zeros, which the released code keeps by their mask, are top - offset: nothing
    nothing = offset.clamp(min=torch.finfo(offset.dtype).tiny)
    top = torch.where(mine.any(1, keepdim=True), top, nothing)
    # the arithmetic of the grid, which counts from the top
    q = torch.round((torch.log2(top.float()) - octave) / step.float()).clamp_(0, count - 1)
    value = torch.exp2(-q * step.float()) * top.float() - offset.float()
    return torch.where(mine, value - rows.abs(), 0.0).double().square().sum().item(), top, step
