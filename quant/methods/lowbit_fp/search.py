"""Format and clip of one tensor by least squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.grid import Params
from quant.quantizer import Quantizer
from quant.searched import SearchedFloatGrid


def sample(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw at most `count` values of a tensor, the largest magnitude among them."""
    flat = x.detach().float().flatten()
    if flat.numel() <= count:
        return flat
    index = torch.randint(flat.numel(), (count - 1,), generator=generator).to(flat.device)
    return torch.cat([flat[index], flat[flat.abs().argmax()][None]])


def search(
    values: Tensor, quantizer: Quantizer, clips: int, absmax: float | None = None
) -> tuple[Params, dict]:
    """Parameters of a tensor: the (format, clip) pair with the least squared error.

    Parameters
    ----------
    values : tensor of shape (n,)
    quantizer : Quantizer
        Its grid is a `SearchedFloatGrid`, a `FloatGrid` or an `IntGrid`; one set of parameters for the whole
        tensor.
    clips : int
        Clip values tried, evenly from 0.1 to 1.2 times absmax.
    absmax : float, optional
        Of the whole tensor, if `values` are only a part of it.

    Returns
    -------
    params : dict of str to tensor
        Of shape (1,): to be reshaped to the granularity's view.
    notes : dict
        Chosen format and clip (as a share of absmax).
    """
    grid = quantizer.grid
    top = float(values.abs().max()) if absmax is None else absmax
    options = (
        [grid.format(i) for i in range(len(grid.formats))] if isinstance(grid, SearchedFloatGrid) else [grid]
    )
    shares = torch.linspace(0.1, 1.2, clips, device=values.device)
    best: tuple[float, int, float] = (float("inf"), 0, 1.0)
    for index, option in enumerate(options):
        for part in shares.split(16):
            edge = part[:, None] * top
            params = option.fit_range(-edge, edge, False, torch.float32)
            error = (option.fake(values[None].expand(len(part), -1), params) - values).square().sum(1)
            row = int(error.argmin())
            if float(error[row]) < best[0]:
                best = (float(error[row]), index, float(part[row]))
    chosen = options[best[1]]
    edge = torch.full((1,), best[2] * top, device=values.device)
    params = chosen.fit_range(-edge, edge, False, torch.float32)  # type: ignore[union-attr]
    if isinstance(grid, SearchedFloatGrid):
        params["format"] = torch.full((1,), best[1], dtype=torch.uint8, device=values.device)
    return params, {"format": chosen.label, "clip": round(best[2], 4)}
