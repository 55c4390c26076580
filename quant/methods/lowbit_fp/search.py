"""Format and clip of one tensor by least squared error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from quant.formats.floats import SearchedFloatGrid
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer


class Values(NamedTuple):
    """Values of a tensor that stand for all of them.

    Attributes
    ----------
    values : tensor of shape (n,)
    weights : tensor of shape (n,)
        How many of the tensor's values each stands for.
    absmax : float
        Of the tensor.
    """

    values: Tensor
    weights: Tensor
    absmax: float


def sample(x: Tensor, count: int, generator: torch.Generator) -> Values:
    """Draw at most `count` values of a tensor: the largest eighth of them exactly, the others from the bulk.

    Clipping errors come from a few values at the far end and rounding errors from the bulk. So the end is
    kept whole and each of its values counts once; a value drawn from the rest counts for its share of it.
    """
    flat = x.detach().float().flatten()
    absmax = float(flat.abs().max())
    if flat.numel() <= count:
        return Values(flat, torch.ones_like(flat), absmax)
    tail = count // 8
    far = flat.abs().topk(tail).indices
    bulk = torch.ones_like(flat, dtype=torch.bool)
    bulk[far] = False
    rest = flat[bulk]
    drawn = torch.randint(len(rest), (count - tail,), generator=generator).to(flat.device)
    weights = torch.full((count,), len(rest) / (count - tail), device=flat.device)
    weights[:tail] = 1.0
    return Values(torch.cat([flat[far], rest[drawn]]), weights, absmax)


def search(
    seen: Values, quantizer: Quantizer, clips: int, absmax: float | None = None
) -> tuple[Params, dict]:
    """Parameters of a tensor: the (format, clip) pair with the least squared error.

    Parameters
    ----------
    seen : Values
    quantizer : Quantizer
        Its grid is a `SearchedFloatGrid`, a `FloatGrid` or an `IntGrid`; one set of parameters for the whole
        tensor.
    clips : int
        Clip values tried, evenly from 0.1 to 1.2 times absmax.
    absmax : float, optional
        Of everything, if the tensor that `seen` was drawn from is only a part of it.

    Returns
    -------
    params : dict of str to tensor
        Of shape (1,): to be reshaped to the granularity's view.
    notes : dict
        Chosen format and clip (as a share of absmax).
    """
    values, top = seen.values, seen.absmax if absmax is None else absmax
    grid = quantizer.grid
    options = (
        [grid.format(i) for i in range(len(grid.formats))] if isinstance(grid, SearchedFloatGrid) else [grid]
    )
    shares = torch.linspace(0.1, 1.2, clips, device=values.device)
    best: tuple[float, int, float] = (float("inf"), 0, 1.0)
    for index, option in enumerate(options):
        for part in shares.split(16):
            edge = part[:, None] * top
            params = option.fit_range(-edge, edge, False, torch.float32)
            off = option.fake(values[None].expand(len(part), -1), params) - values
            error = off.square_() @ seen.weights
            row = int(error.argmin())
            if float(error[row]) < best[0]:
                best = (float(error[row]), index, float(part[row]))
    chosen = options[best[1]]
    edge = torch.full((1,), best[2] * top, device=values.device)
    params = chosen.fit_range(-edge, edge, False, torch.float32)  # type: ignore[union-attr]
    if isinstance(grid, SearchedFloatGrid):
        params["format"] = torch.full((1,), best[1], dtype=torch.uint8, device=values.device)
    return params, {"format": chosen.label, "clip": round(best[2], 4)}
