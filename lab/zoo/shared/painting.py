"""From tokens to scored pictures: one noise seed and one sample a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from brainit import metrics
from lab.metrics.distances import pooled_features
from lab.metrics.efficientnet import load_efficientnet
from lab.zoo import load
from lab.zoo.sampling import SamplerSettings, draw_noise, sample

SAMPLER = SamplerSettings(steps=20, guidance=2.0, strength=1.0, batch=300)
Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Painter:
    """All that turns tokens into scores.

    Parameters
    ----------
    truth : float32 array of shape (n, 64, 64, 3)
    heads : array of shape (n, n_features)
        What the scoring network sees in it.
    """

    autoencoder: nn.Module
    network: Any
    truth: np.ndarray
    heads: np.ndarray
    seed: int
    device: str

    @classmethod
    def of(cls, images: torch.Tensor, seed: int, device: str) -> Painter:
        """Build from uint8 pictures (n, 3, 64, 64)."""
        network = load_efficientnet(device)
        floats = images.float() / 255
        heads = pooled_features(network, floats.to(device), "head")
        truth = floats.permute(0, 2, 3, 1).numpy()
        return cls(load("autoencoder-64", device), network, truth, heads, seed, device)

    def paint(
        self,
        denoiser: nn.Module,
        null: torch.Tensor,
        tokens: torch.Tensor,
        guidance: float,
        start: torch.Tensor | None = None,
        **changes: Any,
    ) -> tuple[np.ndarray, Scores]:
        """Return pictures (n, 64, 64, 3) and each one's scores; ``changes`` are of `SAMPLER`.

        ``start`` are pictures (n, 3, 64, 64) to start at where a strength below 1 is given.
        """
        noise = draw_noise(len(tokens), self.seed)
        settings = replace(SAMPLER, guidance=guidance, **changes)
        with torch.no_grad():
            origin = None if start is None else self.autoencoder.encode(start.to(self.device)).cpu()
            latents = sample(denoiser, tokens.cpu(), null, noise, settings, start=origin)
            pictures = torch.cat([self.autoencoder.decode(x.to(self.device)) for x in latents.split(100)])
        pictures = pictures.clamp(0, 1)
        return pictures.permute(0, 2, 3, 1).float().cpu().numpy(), self.score(pictures)

    def score(self, pictures: torch.Tensor) -> Scores:
        """Return each picture's two-way, N-way top-1 and PixCorr; pictures (n, 3, 64, 64) on the device."""
        made = pictures.permute(0, 2, 3, 1).float().cpu().numpy()
        heads = pooled_features(self.network, pictures, "head")
        return {
            "two_way": metrics.two_way(heads, self.heads),
            "pixcorr": metrics.pixcorr(made, self.truth),
            "top1": metrics.top1(heads, self.heads),
        }


def intervals(scores: Scores) -> dict[str, list[float]]:
    """Return ``[mean, low, high]`` of each score, 95 % over pictures."""
    return {k: [round(float(v), 4) for v in metrics.interval_of(k)(s)] for k, s in scores.items()}
