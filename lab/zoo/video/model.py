"""What the video denoiser is: a Wan transformer on the latents of single frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lab.zoo.video.clips import FRAMES, N_TOKENS, PATCHES, WIDTH

NAME = "video-dit"
SHAPE = (8, FRAMES, 16, 16)
"""Channels, frames, height and width of a clip's latent."""


def build(frames: int = FRAMES) -> nn.Module:
    """Return the untrained denoiser."""
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=32, in_channels=8, out_channels=8,
        text_dim=WIDTH, freq_dim=256, ffn_dim=512, num_layers=6, rope_max_seq_len=32,
    )  # fmt: skip
    # Wan's config does not say how large a sample is; ours has one size only
    model.register_to_config(sample_size=[frames, *SHAPE[2:]])
    return model


class Conditioned(nn.Module):
    """The denoiser with its learned null condition: what guidance pushes away from.

    All patches of the first frame share one row of it (19, 192), as the file does; see `zoo.null_tokens`.
    """

    def __init__(self, denoiser: nn.Module, null: Tensor | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        blank = torch.randn(N_TOKENS - PATCHES**2 + 1, WIDTH) * 0.02
        self.null = nn.Parameter(blank if null is None else null[: len(blank)].float())

    def blank(self) -> Tensor:
        """Return the null condition (82, 192)."""
        return torch.cat([self.null[:-1], self.null[-1:].expand(PATCHES**2, -1)])

    def forward(self, x: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        return self.denoiser(x, timestep=timestep, encoder_hidden_states=tokens, return_dict=False)[0]


def encode_frames(autoencoder: Any, clips: Tensor, batch: int = 512) -> Tensor:
    """Encode every frame of clips (n, frames, 3, 64, 64) by itself: latents (n, 8, frames, 16, 16)."""
    n, frames = clips.shape[:2]
    flat = torch.cat([autoencoder.encode(x) for x in clips.flatten(0, 1).split(batch)])
    return flat.view(n, frames, *flat.shape[1:]).transpose(1, 2)


def decode_frames(autoencoder: Any, latents: Tensor, batch: int = 256) -> Tensor:
    """Undo `encode_frames`: clips (n, frames, 3, 64, 64) in 0..1."""
    flat = latents.transpose(1, 2).flatten(0, 1)
    frames = torch.cat([autoencoder.decode(x) for x in flat.split(batch)])
    return frames.view(len(latents), -1, *frames.shape[1:])
