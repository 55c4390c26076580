"""Search of the coarse scale of each row of a weight, where group scales have two levels (`quant.scales`)."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.granularity import Layout
from quant.grid import Params
from quant.quantizer import Quantizer
from quant.scales import coarse_candidates, effective, neighbours, split

CANDIDATES = 16


def weight_params(weight: Tensor, quantizer: Quantizer, layout: Layout) -> Params:
    """Scales of a weight; where they have two levels, the coarse one is searched for each row.

    For every row the coarse scale is the one of 16 over an octave (pow2) or a third (int) with the least
    squared error, every group with the best of three neighbouring fine scales.

    Parameters
    ----------
    weight : tensor of shape (N, K) or (N, C, *kernel)
    quantizer : Quantizer
    layout : "linear_weight" or "conv_weight"
    """
    fine = quantizer.fine
    if fine not in ("pow2", "int"):
        return quantizer.params(weight, layout)
    weight = weight.float()
    plain = quantizer.model_copy(update={"fine": None, "scale_dtype": "float32"})
    view, dims = quantizer.granularity.view(weight, layout)
    real = plain.params(weight, layout)["scale"]
    rows = tuple(range(1, real.ndim))
    best: Params = {}
    least = torch.full((len(weight), *[1] * len(rows)), torch.inf, device=weight.device)
    for coarse in coarse_candidates(real, layout, fine, CANDIDATES, quantizer.largest_code):
        start = split(real, layout, fine, coarse, quantizer.largest_code)
        params, errors = _best_fine(view, dims, start, quantizer)
        error = errors.sum(rows, keepdim=True)
        better = error < least
        least = torch.minimum(error, least)
        best = {key: torch.where(better, value, best.get(key, value)) for key, value in params.items()}
    return best


def _best_fine(
    view: Tensor, dims: tuple[int, ...], params: Params, quantizer: Quantizer
) -> tuple[Params, Tensor]:
    """Fine scale of each group with the least squared error, and that error."""
    fine, least = params["scale_fine"], torch.full_like(params["scale_fine"], torch.inf, dtype=torch.float32)
    for option in neighbours(params, quantizer.largest_code):
        fake = quantizer.grid.fake(view, effective(option, torch.float32))
        error = (view - fake).square().sum(dims, keepdim=True)
        fine = torch.where(error < least, option["scale_fine"], fine)
        least = torch.minimum(error, least)
    return {**params, "scale_fine": fine}, least
