"""The diffusion decoder: tokens and a structural picture in, pictures out; any denoiser, quantized or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lab.errors import InputError
from lab.progress import Progress, silent


@dataclass(frozen=True)
class SamplerSettings:
    """How pictures are drawn.

    Parameters
    ----------
    steps : int
        Denoiser evaluations along the way from ``strength`` to 0 (twice as many with guidance).
    guidance : float
        Classifier-free guidance scale (Ho and Salimans 2022); 1 switches it off.
    strength : float
        Where the way starts: 1 is pure noise, smaller keeps more of the structural picture (SDEdit, Meng et
        al. 2022).
    batch : int
        Pictures at once; does not change the result beyond rounding.
    """

    steps: int = 20
    guidance: float = 2.0
    strength: float = 1.0
    batch: int = 64

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch", self.batch)):
            if value < 1:
                raise InputError(f"sampler: {name} is {value}; it must be at least 1")
        if not 0 <= self.strength <= 1:
            raise InputError(f"sampler: strength is {self.strength}; allowed: 0 to 1")
        if self.guidance < 0:
            raise InputError(f"sampler: guidance is {self.guidance}; allowed: 0 and more (1 is none)")


def draw_noise(n: int, seed: int, shape: tuple[int, ...] = (8, 16, 16)) -> torch.Tensor:
    """Draw the start noise (n, *shape) on the CPU in float32: every device and bit-width sees the same."""
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(
    denoiser: nn.Module,
    tokens: torch.Tensor,
    null: torch.Tensor,
    noise: torch.Tensor,
    settings: SamplerSettings,
    start: torch.Tensor | None = None,
    progress: Progress = silent,
    on_step: Callable[[dict], None] | None = None,
) -> torch.Tensor:
    """Follow the rectified flow dx/ds = v(x, s, c) from s = strength to 0 in Euler steps (Liu et al. 2023).

    Parameters
    ----------
    denoiser : module
        Called as diffusers denoisers are: ``denoiser(x, timestep=1000 s, encoder_hidden_states=c)``.
    tokens : float32 tensor of shape (n, 17, 192)
        Condition of each picture.
    null : float32 tensor of shape (17, 192)
        The learned null condition.
    noise : float32 tensor of shape (n, 8, 16, 16)
        From ``draw_noise``.
    start : float32 tensor of shape (n, 8, 16, 16), optional
        Latent of the structural picture; needed where ``strength`` < 1.
    on_step : callable, optional
        Receives a dict (x, velocity, timestep, index) at each step; for looking only.

    Returns
    -------
    float32 tensor of shape (n, 8, 16, 16)
        Latents, on the CPU.

    Raises
    ------
    InputError
        ``strength`` is below 1 and there is no ``start``, or the numbers of pictures differ.
    """
    lengths = {len(part) for part in (tokens, noise, start) if part is not None}
    if len(lengths) > 1:
        raise InputError(f"tokens, noise and start are for {sorted(lengths)} pictures; they must agree")
    if start is None and settings.strength < 1:
        raise InputError(f"strength {settings.strength} needs a picture to start from; 1 starts from noise")
    if start is not None and settings.strength == 0:
        return start.float().cpu()
    device = next(denoiser.parameters()).device
    batches = torch.arange(len(noise)).split(settings.batch)
    done, out = 0, []
    for index in batches:
        c, n = tokens[index].to(device), noise[index].to(device)
        x0 = torch.zeros_like(n) if start is None else start[index].to(device)
        x = (1 - settings.strength) * x0 + settings.strength * n
        scheduler = _scheduler(settings)
        for t in scheduler.timesteps:
            v = guided(denoiser, x, t.to(device), c, null.to(device), settings.guidance)
            if on_step:
                on_step({"x": x, "velocity": v, "timestep": float(t), "index": index})
            x = scheduler.step(v, t, x, return_dict=False)[0]
            done += 1
            progress(done, len(batches) * settings.steps, "sampling")
        out.append(x.float().cpu())
    return torch.cat(out)


def guided(
    denoiser: nn.Module,
    x: torch.Tensor,
    t: torch.Tensor,
    c: torch.Tensor,
    null: torch.Tensor,
    guidance: float,
) -> torch.Tensor:
    """Return v(x, null) + guidance * (v(x, c) - v(x, null)); one evaluation where guidance is 1."""
    if guidance == 1:
        return _velocity(denoiser, x, t, c)
    both = torch.cat([null.expand_as(c), c])
    free, held = _velocity(denoiser, torch.cat([x, x]), t, both).chunk(2)
    return free + guidance * (held - free)


def _velocity(denoiser: nn.Module, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return denoiser(x, timestep=t.expand(len(x)), encoder_hidden_states=c, return_dict=False)[0]


def _scheduler(settings: SamplerSettings) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    scheduler.set_timesteps(sigmas=np.linspace(settings.strength, 0, settings.steps, endpoint=False))
    return scheduler
