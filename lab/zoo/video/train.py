"""Training the video denoiser by rectified flow on clips filmed from training pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.progress import Progress, silent
from lab.zoo.data import N_NATURAL_CLASSES, Pictures
from lab.zoo.models.encoder import PatchEncoder
from lab.zoo.train.loop import Outcome, Recipe, fit
from lab.zoo.video import clips
from lab.zoo.video.model import Conditioned, build, encode_frames

RECIPE = Recipe(steps=14_000, batch=128, lr=1e-3, weight_decay=0.01, warmup=300, ema=0.999)
DROP_CONDITION, NOISIER = 0.05, 0.4
"""Share of cases without a condition; shift of the times to where frames and movement are decided."""
CLIPS = 64_000
"""Filmed once before training, each with a motion of its own."""
DATA = (
    "tiny-imagenet-64 train and mirror images, filmed (lab.zoo.video.clips): pans and sprites of 4 pixels a "
    "frame, zooms; condition: encoder tokens and latent of the first frame, and the motion"
)
_CHUNK = 256


def scenes(pictures: Pictures) -> Pictures:
    """Keep the natural pictures: digits and patterns have nothing outside of what a camera sees first."""
    kept = pictures.labels < N_NATURAL_CLASSES
    return Pictures(pictures.images[kept], pictures.labels[kept])


@torch.no_grad()
def film(
    pictures: Pictures, autoencoder: Any, encoder: PatchEncoder, n: int = CLIPS, seed: int = 0,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Film clips and encode them.

    Returns
    -------
    latents : float16 tensor of shape (n, 8, 8, 16, 16)
        Channels before frames.
    tokens : float16 tensor of shape (n, 82, 192)
    """
    device = pictures.images.device
    motions = clips.draw_motions(n, seed)
    g = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(pictures), generator=g) for _ in range(-(-n // len(pictures)))])[:n]
    others = torch.randint(len(pictures), (n,), generator=g)
    mirrored = torch.rand(n, generator=g) < 0.5
    latents, tokens = [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for index in torch.arange(n).split(_CHUNK):
            a, b = (pictures.batch(k[index].to(device)) for k in (order, others))
            flip = mirrored[index].to(device).view(-1, 1, 1, 1)
            filmed = clips.render(torch.where(flip, a.flip(-1), a), b, motions[index])
            latents.append(encode_frames(autoencoder, filmed).half())
            known = condition(encoder, filmed[:, 0], latents[-1][:, :, 0], motions[index].to(device))
            tokens.append(known.half())
            progress(int(index[-1]) + 1, n, "filming")
    return torch.cat(latents), torch.cat(tokens)


@torch.no_grad()
def condition(encoder: PatchEncoder, first: Tensor, latents: Tensor, motions: Tensor) -> Tensor:
    """Return the condition (n, 82, 192) of clips.

    Parameters
    ----------
    encoder : PatchEncoder
    first : float32 tensor of shape (n, 3, 64, 64)
        First frames in 0..1.
    latents : tensor of shape (n, 8, 16, 16)
        Of these.
    motions : float32 tensor of shape (n, 11)
    """
    seen = encoder(first.contiguous()).float()
    return torch.cat([seen, clips.motion_token(motions), clips.latent_tokens(latents.float())], 1)


def train(
    latents: Tensor,
    tokens: Tensor,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
    start: tuple[nn.Module, Tensor] | None = None,
) -> tuple[Conditioned, Outcome]:
    """Minimise |v(x_s, s, c) - (n - x_0)|^2 as `lab.zoo.train.denoiser.train` does, at noisier times."""
    device = latents.device
    torch.manual_seed(seed)
    model = Conditioned(*(start or (build(),))).to(device)

    def step_loss(model: Conditioned, index: Tensor, key: Tensor) -> Tensor:
        x0, c = latents[index].float(), tokens[index].float()
        drop = torch.rand(len(x0), 1, 1, device=x0.device) < DROP_CONDITION
        c = torch.where(drop, model.blank(), c)
        s = torch.sigmoid(NOISIER + torch.randn(len(x0), device=x0.device))
        noise = torch.randn_like(x0)
        at = s.view(-1, 1, 1, 1, 1)
        v = model((1 - at) * x0 + at * noise, 1000 * s, c)
        return (v.float() - (noise - x0)).square().mean()

    outcome = fit(
        model, step_loss, len(latents), recipe, state_file, seed=seed, minutes=minutes, progress=progress
    )
    return model, outcome
