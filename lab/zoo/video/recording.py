"""Clips of the shipped stimuli: what the video denoiser's recordings and comparisons are conditioned on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lab import zoo
from lab.zoo import stimuli
from lab.zoo.video import clips
from lab.zoo.video.train import condition

MOTION_SEED = 20


def stimulus_clips(rows: Tensor, device: Any = "cpu", batch: int = 64) -> tuple[Tensor, Tensor]:
    """Film shipped stimuli: each has a motion of its own, and sprites are cut from the next stimulus.

    Parameters
    ----------
    rows : int64 tensor of shape (k,)
        Of the shipped stimuli.

    Returns
    -------
    clips : float32 tensor of shape (k, 8, 3, 64, 64)
        On ``device``.
    tokens : float32 tensor of shape (k, 82, 192)
        Their conditions, on the CPU.
    """
    images, _ = stimuli.load()
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
    motions = clips.draw_motions(len(images), MOTION_SEED)
    encoder, autoencoder = (zoo.load(name, str(device)) for name in ("encoder-64", "autoencoder-64"))
    filmed, tokens = [], []
    for some in rows.split(batch):
        seen, other = (pictures[k % len(images)].to(device).float() / 255 for k in (some, some + 1))
        filmed.append(clips.render(seen, other, motions[some]))
        first = filmed[-1][:, 0].contiguous()
        with torch.no_grad():
            latents = autoencoder.encode(first)
        tokens.append(condition(encoder, first, latents, motions[some].to(device)).cpu())
    return torch.cat(filmed), torch.cat(tokens)
