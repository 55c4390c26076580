"""Training the network that all subjects share: on simulated people, read from few trials or many.

Stage 1 brings its tokens to the true ones; stage 2 goes on with the loss of a frozen denoiser that is
conditioned on them (Brain-IT, arXiv 2510.25976, with the published data replaced by simulated people, whose
fMRI is new at every step). A picture is never one of those that its reader was fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from brainit.network.shared import SharedNetwork, Voxels
from lab.zoo.people import Seen
from lab.zoo.shared.pupils import Pupil
from lab.zoo.train.denoiser import Conditioned, flow_draws, flow_loss
from lab.zoo.train.loop import Outcome, Prepare, Recipe, fit

TOKENS = Recipe(steps=20_000, batch=1024, lr=1e-3, weight_decay=0.05, warmup=200, ema=0.999)
PICTURES = Recipe(steps=6_000, batch=512, lr=2e-4, weight_decay=0.02, warmup=50, ema=0.998)
REPEATS = 3
RANK = 8
"""Of low-rank adapters on the denoiser."""
KEEP_TOKENS = 1.0
"""Weight of the tokens' squared error beside the denoiser's loss in stage 2."""


def fresh_trials(group: Sequence[Pupil], seen: Seen, latents: bool) -> Prepare:
    """Return what makes batches: one person, pictures it was not scanned with, fMRI that is new each time."""
    free = []
    for pupil in group:
        fresh = torch.ones(len(seen.tokens), dtype=torch.bool, device=seen.tokens.device)
        fresh[pupil.scanned] = False
        free.append(torch.nonzero(fresh)[:, 0])

    @torch.no_grad()
    def prepare(index: torch.Tensor) -> tuple[Any, ...]:
        k = int(torch.randint(len(group), (1,)))
        repeats = int(torch.randint(1, REPEATS + 1, (1,)))
        index = free[k][index % len(free[k])]
        x = group[k].look(index, repeats)
        shown = seen.latents[index].float() if latents else None
        return group[k].voxels, x, None, seen.tokens[index], shown

    return prepare


def token_loss(
    network: SharedNetwork,
    voxels: Voxels,
    x: torch.Tensor,
    base: torch.Tensor | None,
    goal: torch.Tensor,
    latents: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the predicted tokens; ``goal`` is flat, ``base`` what the read-out says."""
    return F.mse_loss(network(x, voxels, base).float().flatten(1), goal)


class Painted(nn.Module):
    """The network with the denoiser that its tokens condition.

    Parameters
    ----------
    learns : {"frozen", "lora", "whole"}
        What of the denoiser trains with the network; ``lora``: low-rank adapters on its attention (Hu et al.
        2022), by peft.
    """

    def __init__(self, network: SharedNetwork, conditioned: Conditioned, learns: str = "frozen") -> None:
        super().__init__()
        self.network, self.conditioned = network, conditioned
        conditioned.requires_grad_(learns == "whole")
        if learns == "lora":
            from peft import LoraConfig, inject_adapter_in_model

            adapters = LoraConfig(
                r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]
            )
            inject_adapter_in_model(adapters, conditioned.denoiser)

    def forward(
        self,
        voxels: Voxels,
        x: torch.Tensor,
        base: torch.Tensor | None,
        goal: torch.Tensor,
        latents: torch.Tensor,
        *drawn: torch.Tensor,
    ) -> torch.Tensor:
        tokens = self.network(x, voxels, base).float()
        error = F.mse_loss(tokens.flatten(1), goal)
        return flow_loss(self.conditioned, latents, tokens, drawn or None) + KEEP_TOKENS * error  # type: ignore[arg-type]


def train_tokens(
    network: SharedNetwork, prepare: Prepare, n: int, state_file: Path, recipe: Recipe, **effort: Any
) -> Outcome:
    """Train stage 1 on batches of ``n`` examples; ``effort`` is seed, minutes and progress of `fit`."""
    return fit(network, token_loss, n, recipe, state_file, prepare=prepare, compiled=False, **effort)


def train_pictures(
    painted: Painted, prepare: Prepare, n: int, state_file: Path, recipe: Recipe, **effort: Any
) -> Outcome:
    """Train stage 2; arguments as for `train_tokens`."""

    def loss(model: Painted, *given: Any) -> torch.Tensor:
        return model(*given)

    def drawn(index: torch.Tensor) -> tuple[Any, ...]:
        # times and noise belong to the batch: each of several processes takes its rows of them
        given = prepare(index)
        return (*given, *flow_draws(given[-1]))

    return fit(painted, loss, n, recipe, state_file, prepare=drawn, compiled=False, **effort)
