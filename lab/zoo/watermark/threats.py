"""What people do to a mark rather than to a picture: draw again, average out, lift, train away."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lab import zoo
from lab.progress import Progress, silent
from lab.zoo.sampling import SamplerSettings, draw_noise, sample
from quant.adapters.watermark.distortions import blurred, stored


def batched(function: Callable[[Tensor], Tensor], images: Tensor, batch: int = 250) -> Tensor:
    """Apply a network to pictures, without gradients, and store what comes out with 8 bits."""
    with torch.no_grad():
        return torch.cat([stored(function(x)) for x in images.split(batch)])


def diffused(images: Tensor, strength: float, autoencoder: nn.Module, device: str) -> Tensor:
    """Noise the latent to `strength` and let dit-64 clean it, on the picture's tokens; unmarked decoder."""
    denoiser, encoder = zoo.load("dit-64", device), zoo.load("encoder-64", device)
    with torch.no_grad():
        tokens = torch.cat([encoder(x) for x in images.split(250)])
        latents = torch.cat([autoencoder.encode(x) for x in images.split(250)])  # type: ignore[operator]
        settings = SamplerSettings(
            steps=max(2, round(20 * strength)), guidance=1.0, strength=strength, batch=250
        )
        noise = draw_noise(len(images), 0)
        drawn = sample(denoiser, tokens, zoo.null_tokens("dit-64"), noise, settings, start=latents)
    return batched(autoencoder.decode, drawn.to(device))  # type: ignore[arg-type]


def fine(images: Tensor) -> Tensor:
    """Return what a blur of one pixel leaves: where a mark is."""
    return images - blurred(images, 1.0)


def average_mark(marked: Tensor, others: Tensor) -> Tensor:
    """Estimate the mark (1, 3, h, w): the difference of mean fine texture, over pictures of other content."""
    return (fine(marked).mean(0) - fine(others).mean(0))[None]


def tuned(
    model: nn.Module, pictures: Tensor, steps: Sequence[int], *, rate: float, batch: int = 64, seed: int = 0,
    target: Callable[[Tensor], Tensor] = lambda x: x, progress: Progress = silent,
) -> Iterator[tuple[int, nn.Module]]:  # fmt: skip
    """Train a copy of the whole decoder further on pictures (uint8) and yield it at the wanted steps.

    The loss is the squared error to `target` of the picture: by default plain reconstruction, which is what
    somebody who adapts the decoder to own pictures does.
    """
    model = copy.deepcopy(model).requires_grad_(False)
    changed: Any = model.decoder
    changed.requires_grad_(True)
    optimiser = torch.optim.AdamW(changed.parameters(), lr=rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for step in range(1, max(steps) + 1):
        progress(step - 1, max(steps), "training the decoder")
        index = torch.randint(len(pictures), (batch,), generator=generator)
        x = pictures[index.to(pictures.device)].float() / 255
        with torch.no_grad():
            raw = model.moments(x)[0]  # type: ignore[operator]
        loss = (model.reconstruct(raw) - target(x)).square().mean()  # type: ignore[operator]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step in steps:
            yield step, model
