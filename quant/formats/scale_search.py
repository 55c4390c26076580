"""Search of group scales of two levels (`quant.formats.scales`) by squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.formats.granularity import Layout, View
from quant.formats.grids import IntGrid, Params
from quant.formats.scales import Fine, coarse_candidates, coarse_dims, effective, neighbours, split


def searched(view: View, real: Tensor, grid: IntGrid, layout: Layout, fine: Fine, count: int) -> Params:
    """Coarse and fine scales with the least squared error, for each row by itself.

    Every coarse scale of `quant.formats.scales.coarse_candidates` is tried, and with each of them three
    neighbouring fine scales for every group: between two powers of two, rounding down cuts the largest
    codes and rounding up makes all steps wider, and which costs less depends on the group.

    Parameters
    ----------
    view : View
        Data in groups.
    real : tensor
        Real group scales, in view shape.
    grid : IntGrid
    layout : Layout
        Says who shares a coarse scale.
    fine : {"pow2", "int"}
    count : int
        Coarse scales to try; 1 takes the one that lets the largest group keep its own.

    Returns
    -------
    dict of str to tensor
        ``scale`` and ``scale_fine``.
    """
    code = grid.code_range[1]
    rows = coarse_dims(real, layout, fine)
    best: Params = {}
    least = torch.full_like(real.float().sum(rows, keepdim=True), torch.inf)
    for coarse in coarse_candidates(real, layout, fine, count, code):
        params, errors = _best_fine(view, split(real, layout, fine, coarse, code), grid, code)
        error = errors.sum(rows, keepdim=True)
        better = error < least
        least = torch.minimum(error, least)
        best = {key: torch.where(better, value, best.get(key, value)) for key, value in params.items()}
    return best


def _best_fine(view: View, params: Params, grid: IntGrid, code: int) -> tuple[Params, Tensor]:
    """Fine scale of each group with the least squared error, and that error."""
    fine, least = params["scale_fine"], torch.full_like(params["scale_fine"], torch.inf, dtype=torch.float32)
    for option in neighbours(params, code):
        fake = grid.fake(view.tensor, effective(option, torch.float32))
        error = (view.tensor - fake).square().sum(view.dims, keepdim=True)
        fine = torch.where(error < least, option["scale_fine"], fine)
        least = torch.minimum(error, least)
    return {**params, "scale_fine": fine}, least
