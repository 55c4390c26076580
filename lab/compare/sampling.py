"""Sampling and single predictions of any denoiser, both guidance branches in one batch, on its device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quant.recordings.sampling import predict


def guided(
    model: nn.Module, x: Tensor, t: Tensor, condition: Tensor | None, null: Tensor | None, guidance: float
) -> Tensor:
    """Prediction after classifier-free guidance, v0 + g (v - v0), from one call of twice the batch."""
    if condition is None or null is None or guidance == 1.0:
        return predict(model, x, t, condition)
    both = torch.cat([null.expand_as(condition), condition])
    free, held = predict(model, torch.cat([x, x]), t, both).chunk(2)
    return free + guidance * (held - free)


@torch.no_grad()
def draw(
    model: nn.Module,
    scheduler: Any,
    noise: Tensor,
    condition: Tensor | None,
    null: Tensor | None,
    *,
    steps: int,
    guidance: float,
    batch: int = 256,
    seed: int = 0,
    see: Callable[[int, slice, Tensor], None] | None = None,
) -> Tensor:
    """Sample; everything stays on the noise's device.

    Parameters
    ----------
    noise : float32 tensor of shape (n, C, H, W)
        Unit variance.
    condition : tensor of shape (n, ...) or None
    null : tensor of shape (...) or None
    steps, guidance, batch
        As `lab.zoo.sampling.SamplerSettings`.
    seed : int
        Of a stochastic scheduler's own noise: one generator a sample.
    see : callable, optional
        ``see(step, rows, x)`` with the model's input at each step.

    Returns
    -------
    float32 tensor of shape (n, C, H, W)
    """
    stochastic = "generator" in inspect.signature(scheduler.step).parameters
    out = []
    for start in range(0, len(noise), batch):
        rows = slice(start, min(start + batch, len(noise)))
        c = None if condition is None else condition[rows]
        scheduler.set_timesteps(steps)
        x = noise[rows] * float(getattr(scheduler, "init_noise_sigma", 1.0))
        options: dict[str, Any] = {}
        if stochastic:
            options["generator"] = [
                torch.Generator().manual_seed(seed * 1_000_003 + row) for row in range(rows.start, rows.stop)
            ]
        times = scheduler.timesteps.to(x.device)  # once: a copy each step would wait for the device
        for step, t in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            if see is not None:
                see(step, rows, scaled)
            v = guided(model, scaled, times[step], c, null, guidance).float()
            x = scheduler.step(v, t, x, **options).prev_sample.float()
        out.append(x)
    return torch.cat(out)
