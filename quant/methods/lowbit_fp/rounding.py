"""Learned rounding on a float grid: AdaRound (Nagel et al. 2020) with a step that differs by weight."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.formats.grids import FloatGrid, IntGrid
from quant.formats.rounding import floor_log2
from quant.methods.lowbit_fp.config import LowbitFpConfig

ZETA, GAMMA = 1.1, -0.1
WARM_UP = 0.2


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


def soft(variable: Tensor) -> Tensor:
    """Rectified sigmoid, from 0 to 1."""
    return (torch.sigmoid(variable) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def start(fraction: Tensor) -> Tensor:
    """Variable for which `soft` gives `fraction`."""
    inner = ((fraction - GAMMA) / (ZETA - GAMMA)).clamp(1e-6, 1 - 1e-6)
    return torch.log(inner / (1 - inner))


def undecided(h: Tensor, progress: float) -> Tensor | float:
    """Mean of ``1 - |2h - 1|^beta``: 0 where all roundings are 0 or 1.

    It rests for the first fifth of the steps (`progress` runs from 0 to 1), then beta falls from 20, where
    only roundings near 0 or 1 feel it, to 2.
    """
    if progress < WARM_UP:
        return 0.0
    beta = 20 - 18 * (progress - WARM_UP) / (1 - WARM_UP)
    return (1 - (2 * h - 1).abs() ** beta).mean()


def learn(
    weight: Tensor, rows: Tensor, grid: FloatGrid | IntGrid, scale: Tensor, config: LowbitFpConfig, seed: int
) -> Tensor:
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
    seed : int

    Returns
    -------
    tensor of shape (N, K)
        Values on the grid.
    """
    edge = scale * (grid.code_range[1] if isinstance(grid, IntGrid) else grid.largest)
    clipped = weight.clamp(-edge, edge)
    step = step_of(clipped, grid, scale)
    floor = torch.floor(clipped / step)
    variable = start(clipped / step - floor)
    gain = torch.ones_like(step)
    if config.normalized:  # a weight's gradient carries its step: let the variable carry it too
        gain = step.max() / step
    hidden = torch.nn.Parameter(variable / gain)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        optimizer = torch.optim.Adam([hidden], lr=config.learning_rate)
        size = (rows.square().mean() * weight.square().mean() * weight.shape[1]).clamp(min=1e-30)
        drawn = (config.iterations, min(128, len(rows)))
        batches = torch.randint(len(rows), drawn, generator=generator).to(rows.device)
        for iteration, index in enumerate(batches):
            h = soft(hidden * gain)
            delta = (step * (floor + h)).clamp(-edge, edge) - weight
            loss = (rows[index] @ delta.T).square().mean() / size
            loss = loss + config.penalty * undecided(h, iteration / config.iterations)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    up = (soft(hidden.detach() * gain) >= 0.5).to(step.dtype)
    return (step * (floor + up)).clamp(-edge, edge)
