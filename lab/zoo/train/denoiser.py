"""Training a conditional latent denoiser by rectified flow (Liu et al. 2023; times as Esser et al. 2024)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lab.progress import Progress
from lab.zoo.data import Pictures
from lab.zoo.models.autoencoder import LatentAutoencoder
from lab.zoo.models.encoder import PatchEncoder
from lab.zoo.train.loop import Outcome, Recipe, fit

RECIPES = {
    "unet-64": Recipe(steps=14_000, batch=1024, lr=5e-4, weight_decay=0.01, warmup=500, ema=0.9995),
    "dit-64": Recipe(steps=14_000, batch=1024, lr=5e-4, weight_decay=0.01, warmup=500, ema=0.9995),
}
N_TOKENS, WIDTH = 17, 192
DROP_CONDITION = 0.1


def build(name: str) -> nn.Module:
    """Return the untrained denoiser ``name``."""
    from diffusers import PixArtTransformer2DModel, UNet2DConditionModel

    if name == "unet-64":
        return UNet2DConditionModel(
            sample_size=16,
            in_channels=8,
            out_channels=8,
            block_out_channels=(96, 160),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            transformer_layers_per_block=2,
            cross_attention_dim=WIDTH,
            attention_head_dim=(3, 5),  # diffusers reads this as the number of heads
            norm_num_groups=32,
            use_linear_projection=True,
        )
    return PixArtTransformer2DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=8,
        out_channels=8,
        num_layers=8,
        cross_attention_dim=192,
        caption_channels=WIDTH,
        sample_size=16,
        patch_size=2,
        use_additional_conditions=False,
    )


class Conditioned(nn.Module):
    """A denoiser with its learned null condition (17, 192): what guidance pushes away from."""

    def __init__(self, denoiser: nn.Module, null: torch.Tensor | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.null = nn.Parameter(torch.randn(N_TOKENS, WIDTH) * 0.02 if null is None else null.float())

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.denoiser(x, timestep=timestep, encoder_hidden_states=tokens, return_dict=False)[0]


@torch.no_grad()
def encode_all(
    pictures: Pictures, autoencoder: LatentAutoencoder, encoder: PatchEncoder, batch: int = 1024
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode all pictures and their mirror images: float16 latents (2n, 8, 16, 16), tokens (2n, 17, 192)."""
    device = pictures.images.device
    latents, tokens = [], []
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for mirrored in (False, True):
            for index in torch.arange(len(pictures), device=device).split(batch):
                x = pictures.batch(index)
                x = x.flip(-1) if mirrored else x
                latents.append(autoencoder.encode(x).half())
                tokens.append(encoder(x).half())
    return torch.cat(latents), torch.cat(tokens)


Drawn = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def flow_draws(x0: torch.Tensor) -> Drawn:
    """Draw for latents (n, ...): whose condition is dropped (n, 1, 1), times (n,) in 0..1, and noise."""
    drop = torch.rand(len(x0), 1, 1, device=x0.device) < DROP_CONDITION
    return drop, torch.sigmoid(torch.randn(len(x0), device=x0.device)), torch.randn_like(x0)


def flow_loss(
    model: Conditioned, x0: torch.Tensor, c: torch.Tensor, drawn: Drawn | None = None
) -> torch.Tensor:
    """Mean of |v(x_s, s, c) - (n - x_0)|^2, ``train`` says where; latents and tokens in float32.

    ``drawn`` is what `flow_draws` gives; default: drawn now.
    """
    drop, s, noise = flow_draws(x0) if drawn is None else drawn
    c = torch.where(drop, model.null, c)
    at = s.view(-1, 1, 1, 1)
    v = model((1 - at) * x0 + at * noise, 1000 * s, c)
    return (v.float() - (noise - x0)).square().mean()


def train(
    name: str,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
    start: tuple[nn.Module, torch.Tensor] | None = None,
) -> tuple[Conditioned, Outcome]:
    """Minimise |v(x_s, s, c) - (n - x_0)|^2 with x_s = (1 - s) x_0 + s n, s = sigmoid(N(0, 1)), n ~ N(0, 1).

    The condition c is the tokens, or the learned null in ``DROP_CONDITION`` of the cases (Ho and Salimans
    2022). ``start`` is a denoiser with its null condition (17, 192) to train further.
    """
    device = latents.device
    torch.manual_seed(seed)
    model = Conditioned(*(start or (build(name),))).to(device)
    if name == "unet-64":
        model = model.to(memory_format=torch.channels_last)

    def step_loss(model: Conditioned, index: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return flow_loss(model, latents[index].float(), tokens[index].float())

    outcome = fit(
        model, step_loss, len(latents), recipe, state_file, seed=seed, minutes=minutes, progress=progress
    )
    return model, outcome
