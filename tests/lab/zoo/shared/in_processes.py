"""What ``accelerate launch`` starts (tests/launched.py): both stages, weights into a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from brainit.processes import Processes
from lab.zoo.people import Seen
from lab.zoo.shared import pupils, training
from lab.zoo.train.denoiser import Conditioned

SIZES = {"n_components": 5, "n_clusters": 4, "width": 16, "heads": 2, "depth": 1, "n_tokens": 3}
N, SCANNED, VOXELS, WIDTH = 400, 120, 40, 6


class Denoiser(nn.Module):
    """Latents (n, 2, 4, 4) and tokens to a velocity: two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.keep, self.guide = nn.Linear(32, 32), nn.Linear(WIDTH, 32)

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        v = self.keep(x.flatten(1)) * timestep.view(-1, 1) / 1000 + self.guide(encoder_hidden_states.mean(1))
        return (v.view_as(x),)


def fit(out: Path, together: Processes) -> None:
    """Train stage 1, then stage 2 with the denoiser."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, 5, generator=draw)
    tokens = hidden @ torch.randn(5, 3 * WIDTH, generator=draw)
    latents = (hidden @ torch.randn(5, 32, generator=draw)).view(N, 2, 4, 4)
    seen = Seen(torch.zeros(N, 1), latents, tokens, SCANNED)
    answered = [hidden @ torch.randn(5, VOXELS, generator=draw) / 5**0.5 for _ in range(2)]
    network = pupils.begin(answered, seen, 0, token_width=WIDTH, **SIZES)
    group = pupils.pupils(network, answered, seen, 0, ceilings=(0.3,), trials=(60,))
    recipe = replace(training.TOKENS, steps=4, batch=9, lr=1e-2, warmup=1, ema=0.5)
    folder = out.parent / f"states{together.size}"
    prepare = training.fresh_trials(group, seen, latents=False)
    training.train_tokens(network, prepare, 2**20, folder / "1.safetensors", recipe, seed=0)
    torch.manual_seed(1)
    painted = training.Painted(network, Conditioned(Denoiser(), torch.zeros(3, WIDTH)), "whole")
    prepare = training.fresh_trials(group, seen, latents=True)
    training.train_pictures(painted, prepare, 2**20, folder / "2.safetensors", recipe, seed=0)
    if together.first:
        save_file({k: v.contiguous() for k, v in painted.state_dict().items()}, out)
    together.wait()
