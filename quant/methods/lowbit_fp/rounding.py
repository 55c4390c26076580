"""Learned rounding on a float grid: AdaRound (Nagel et al. 2020) with a step that differs by weight."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.formats.floats import FloatGrid
from quant.formats.grids import IntGrid
from quant.formats.rounding import floor_log2
from quant.methods.lowbit_fp.config import LowbitFpConfig
from quant.registry import Context
from quant.training.loop import Task, distill
from quant.training.optimize import Group
from quant.training.rounding import hard, soft, start, undecided

MOST = 4.0
"""Times that the smallest steps learn faster than the largest: steps of E2M1 differ so much. Those of E3M0
differ 64-fold, and Adam would overturn every small one at once."""


def step_of(weight: Tensor, grid: FloatGrid | IntGrid, scale: Tensor) -> Tensor:
    """Distance between grid neighbours around each weight.

    Parameters
    ----------
    weight : tensor
        Inside the clip value.
    grid : FloatGrid or IntGrid
    scale : tensor of shape (1,)
    """
    if isinstance(grid, IntGrid):
        return torch.ones_like(weight) * scale
    lowest = 1 - grid.offset
    power = floor_log2((weight / scale).abs()).clamp(min=lowest)
    return torch.ldexp(torch.ones_like(weight), power - grid.mantissa) * scale


def learn(
    weight: Tensor, rows: Tensor, grid: FloatGrid | IntGrid, scale: Tensor, config: LowbitFpConfig,
    context: Context, key: str,
) -> Tensor:  # fmt: skip
    """Weights on the grid, each rounded up or down so that the layer's output stays closest.

    ``w_q = step (floor(w / step) + h)``, h learned by Adam on ``||X (W_q - W)^T||^2`` with a term that
    drives h to 0 or 1 (beta from 20 to 2), then cut at one half. The step above the last code of a binade is
    the first code of the next one, so nothing but the clip value can be overstepped.

    Parameters
    ----------
    weight : tensor of shape (N, K)
    rows : tensor of shape (n, K)
        Layer inputs.
    grid : FloatGrid or IntGrid
    scale : tensor of shape (1,)
    config : LowbitFpConfig
    context : Context
        Its seed is that of the rows drawn.
    key : str
        The layer's name.

    Returns
    -------
    tensor of shape (N, K)
        Values on the grid.
    """
    edge = scale * (grid.code_range[1] if isinstance(grid, IntGrid) else grid.largest)
    clipped = weight.clamp(-edge, edge)
    step_size = step_of(clipped, grid, scale)
    floor = torch.floor(clipped / step_size)
    variable = start(clipped / step_size - floor)
    gain = torch.ones_like(step_size)
    if config.normalized:  # a weight's gradient carries its step: let the variable carry it too
        gain = (step_size.max() / step_size).clamp(max=MOST)
    hidden = torch.nn.Parameter(variable / gain)
    generator = torch.Generator().manual_seed(context.seed)
    size = (rows.square().mean() * weight.square().mean() * weight.shape[1]).clamp(min=1e-30)
    drawn = (config.iterations, min(128, len(rows)))
    batches = torch.randint(len(rows), drawn, generator=generator).to(rows.device)

    def loss(index: Tensor, step: int) -> Tensor:
        h = soft(hidden * gain)
        delta = (step_size * (floor + h)).clamp(-edge, edge) - weight
        found = (rows[index] @ delta.T).square().mean() / size
        return found + config.penalty * undecided(h, step / config.iterations)

    groups = [Group({"rounding": hidden}, config.learning_rate)]
    task = Task(key, groups, batches.__getitem__, loss, config.iterations, every=config.iterations)
    distill(task, context)
    up = hard(hidden.detach() * gain).to(step_size.dtype)
    return (step_size * (floor + up)).clamp(-edge, edge)
