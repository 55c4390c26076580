"""The diffusion decoder: tokens and a structural picture in, pictures out; any denoiser, quantized or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lab.errors import InputError
from lab.progress import Progress, silent
from lab.zoo.scheduler import zoo_scheduler
from quant.recordings import sampling


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


def sample(
    denoiser: nn.Module,
    tokens: torch.Tensor,
    null: torch.Tensor,
    noise: torch.Tensor,
    settings: SamplerSettings,
    start: torch.Tensor | None = None,
    progress: Progress = silent,
    see: Callable[[sampling.Step], None] | None = None,
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
    see : callable, optional
        Receives each step of each batch; for looking only.

    Returns
    -------
    float32 tensor of shape (n, 8, 16, 16)
        Latents, on the CPU.

    Raises
    ------
    InputError
        ``strength`` is below 1 and there is no ``start``, or the numbers of pictures differ.
    """
    lengths = {len(given) for given in (tokens, noise, start) if given is not None}
    if len(lengths) > 1:
        raise InputError(f"tokens, noise and start are for {sorted(lengths)} pictures; they must agree")
    if start is None and settings.strength < 1:
        raise InputError(f"strength {settings.strength} needs a picture to start from; 1 starts from noise")
    if start is not None and settings.strength == 0:
        return start.float().cpu()
    device = next(denoiser.parameters()).device
    drawn = sampling.sample(
        denoiser, zoo_scheduler(), noise.to(device), tokens.to(device), null.to(device),
        steps=settings.steps, guidance=settings.guidance, strength=settings.strength,
        start=None if start is None else start.to(device), batch=settings.batch, see=see, progress=progress,
    )  # fmt: skip
    return drawn.cpu()
