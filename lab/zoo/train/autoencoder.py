"""Training the autoencoder: PSNR of the picture, a small pull of the latent to a Gaussian."""

from __future__ import annotations

from pathlib import Path

import torch

from lab.progress import Progress
from lab.zoo.data import Pictures
from lab.zoo.models.autoencoder import LatentAutoencoder
from lab.zoo.train.augment import flip
from lab.zoo.train.loop import Outcome, Recipe, fit

RECIPE = Recipe(steps=24_000, batch=256, lr=1e-3, ema=0.999)
REFINE_RECIPE = Recipe(steps=24_000, batch=256, lr=6e-4, ema=0.999)
KL_WEIGHT = 1e-3
"""At an error of 0.007 that weighs as much as 8e-6 would beside the plain squared error."""
ERROR_FLOOR = 1e-3


def train(
    pictures: Pictures,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
    start: LatentAutoencoder | None = None,
) -> tuple[LatentAutoencoder, Outcome]:
    """Minimise E log(|x - D(z)|^2 + ERROR_FLOOR) + KL_WEIGHT * KL(q(z|x) || N(0, 1)), z ~ q, x in -1..1.

    The logarithm is the picture's PSNR up to a factor, which is what the card reports; the floor keeps
    digits and patterns, which are near perfect, from taking over. ``start`` is trained further if given.
    """
    device = pictures.images.device
    torch.manual_seed(seed)
    model = (start or LatentAutoencoder()).to(device, memory_format=torch.channels_last)

    def step_loss(model: LatentAutoencoder, index: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        x = flip(pictures.batch(index)).contiguous(memory_format=torch.channels_last)
        mean, logvar = model.moments(x)
        mean, logvar = mean.float(), logvar.float()
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        error = (2 * (model.reconstruct(z).float() - x)).square().mean(dim=(1, 2, 3))
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (error + ERROR_FLOOR).log().mean() + KL_WEIGHT * divergence

    outcome = fit(
        model, step_loss, len(pictures), recipe, state_file, seed=seed, minutes=minutes, progress=progress
    )
    standardise(model, pictures)
    return model, outcome


@torch.no_grad()
def standardise(model: LatentAutoencoder, pictures: Pictures, n: int = 8192) -> None:
    """Set ``shift`` and ``scale``: latents of training pictures get mean 0, variance 1 per channel."""
    pick = torch.linspace(0, len(pictures) - 1, min(n, len(pictures)), device=pictures.images.device).long()
    raw = torch.cat([model.moments(pictures.batch(i))[0] for i in pick.split(512)])
    model.shift.copy_(raw.mean(dim=(0, 2, 3), keepdim=True))
    model.scale.copy_(raw.std(dim=(0, 2, 3), keepdim=True))


def refine_decoder(
    model: LatentAutoencoder,
    pictures: Pictures,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
) -> tuple[LatentAutoencoder, Outcome]:
    """Train the decoder alone by squared error: denoisers trained on the frozen encoder stay valid."""
    model.encoder.requires_grad_(False)
    model = model.to(memory_format=torch.channels_last)

    def step_loss(model: LatentAutoencoder, index: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        x = flip(pictures.batch(index)).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            raw = model.moments(x)[0].float()
        return (2 * (model.reconstruct(raw).float() - x)).square().mean()

    outcome = fit(
        model, step_loss, len(pictures), recipe, state_file, seed=seed, minutes=minutes, progress=progress
    )
    model.encoder.requires_grad_(True)
    return model, outcome
