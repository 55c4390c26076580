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
from lab.progress import Progress
from lab.zoo.people import Seen
from lab.zoo.shared.pupils import Pupil
from lab.zoo.train.denoiser import Conditioned, flow_loss
from lab.zoo.train.loop import Outcome, Recipe, fit

TOKENS = Recipe(steps=20_000, batch=1024, lr=1e-3, weight_decay=0.02, warmup=200, ema=0.999)
PICTURES = Recipe(steps=6_000, batch=512, lr=2e-4, weight_decay=0.02, warmup=50, ema=0.998)
REPEATS = 3
KEEP_TOKENS = 1.0
"""Weight of the tokens' squared error beside the denoiser's loss in stage 2."""


def _prepare(group: Sequence[Pupil], seen: Seen, latents: bool) -> Any:
    n = len(seen.tokens)
    free = []
    for pupil in group:
        fresh = torch.ones(n, dtype=torch.bool, device=seen.tokens.device)
        fresh[pupil.scanned] = False
        free.append(torch.nonzero(fresh)[:, 0])

    @torch.no_grad()
    def prepare(index: torch.Tensor) -> tuple[Any, ...]:
        k = int(torch.randint(len(group), (1,)))
        repeats = int(torch.randint(1, REPEATS + 1, (1,)))
        index = free[k][index % len(free[k])]
        x = group[k].look(index, repeats)
        given = (group[k].voxels, x, seen.tokens[index])
        return (*given, seen.latents[index].float()) if latents else given

    return prepare


def token_loss(network: SharedNetwork, voxels: Voxels, x: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the predicted tokens."""
    return F.mse_loss(network(x, voxels).float().flatten(1), goal)


def train_tokens(
    network: SharedNetwork,
    group: Sequence[Pupil],
    seen: Seen,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
) -> Outcome:
    """Train stage 1."""
    return fit(
        network, token_loss, len(seen.tokens), recipe, state_file, seed=seed, minutes=minutes,
        prepare=_prepare(group, seen, False), compiled=False, progress=progress,
    )  # fmt: skip


class Painted(nn.Module):
    """The network with the denoiser that its tokens condition; the denoiser is frozen unless it is to learn."""

    def __init__(self, network: SharedNetwork, conditioned: Conditioned, joint: bool = False) -> None:
        super().__init__()
        self.network, self.conditioned = network, conditioned
        conditioned.requires_grad_(joint)

    def forward(
        self, voxels: Voxels, x: torch.Tensor, goal: torch.Tensor, latents: torch.Tensor
    ) -> torch.Tensor:
        tokens = self.network(x, voxels).float()
        error = F.mse_loss(tokens.flatten(1), goal)
        return flow_loss(self.conditioned, latents, tokens) + KEEP_TOKENS * error


def train_pictures(
    painted: Painted,
    group: Sequence[Pupil],
    seen: Seen,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
) -> Outcome:
    """Train stage 2."""
    return fit(
        painted, lambda model, *given: model(*given), len(seen.tokens), recipe, state_file, seed=seed,
        minutes=minutes, prepare=_prepare(group, seen, True), compiled=False, progress=progress,
    )  # fmt: skip
