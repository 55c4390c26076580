"""Training a denoiser further on tokens that were predicted from fMRI, of many reliabilities.

A denoiser that has only seen true tokens paints grey texture from predicted ones, which are shrunk and wrong
in ways of their own. So it goes on learning from what ridge regression reads out of simulated people
(`lab.zoo.people`): stage 2 of Brain-IT (arXiv 2510.25976) with the network frozen, and for anybody's
subject. unCLIP's noise augmentation (Ramesh et al. 2022) has the same purpose.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab.progress import Progress
from lab.zoo.cortex import NAME
from lab.zoo.people import CONDITIONS, Seen, read, training_people
from lab.zoo.train.denoiser import N_TOKENS, WIDTH, Conditioned, flow_loss
from lab.zoo.train.loop import Outcome, Recipe, fit

RECIPES = {
    "unet-64": Recipe(steps=6000, batch=512, lr=3e-4, weight_decay=0.01, warmup=100, ema=0.999),
    "dit-64": Recipe(steps=6000, batch=512, lr=3e-4, weight_decay=0.01, warmup=100, ema=0.999),
}
TRUE = 0.15
"""Share of the cases whose condition is the true tokens: what the model could do it still can."""
BETWEEN = 0.2
"""Share of the cases that lie between prediction and truth: better subjects than any simulated one."""
REPEATS = 3


def about(sizes: dict[str, int]) -> dict[str, Any]:
    """Return what a card says of the people and tokens that a denoiser learned from."""
    return {
        "conditions": "tokens predicted by ridge regression from simulated fMRI",
        "cortex": f"{NAME}; tokens of encoder-64",
        "people": [asdict(p) for p in training_people(sizes["voxels"])],
        "readings": [asdict(c) for c in CONDITIONS],
        "true_tokens": TRUE,
        "between": BETWEEN,
        **sizes,
    }


def train(
    name: str,
    seen: Seen,
    n_voxels: int,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
    start: tuple[nn.Module, torch.Tensor],
) -> tuple[Conditioned, Outcome]:
    """Minimise the loss of ``denoiser.flow_loss`` on predicted tokens.

    Each step draws a person, a noise ceiling and 1 to `REPEATS` presentations; the fMRI of every picture is
    new each time. ``start`` is the denoiser with its null condition (17, 192).
    """
    device = seen.latents.device
    people = training_people(n_voxels)
    readings = read(people, [CONDITIONS] * len(people), seen, seed, progress)
    readers = [reader for person in readings for reader in person]
    torch.manual_seed(seed)
    model = Conditioned(*start).to(device)
    if name == "unet-64":
        model = model.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def prepare(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        reader = readers[int(torch.randint(len(readers), (1,)))]
        repeats = int(torch.randint(1, REPEATS + 1, (1,)))
        predicted = reader.predict(index, repeats)
        kind, share = torch.rand(2, len(index), 1, device=device)
        share = torch.where(kind < TRUE, 1.0, torch.where(kind < TRUE + BETWEEN, share, 0.0))
        tokens = torch.lerp(predicted, seen.tokens[index], share)
        return seen.latents[index].float(), tokens.view(-1, N_TOKENS, WIDTH)

    outcome = fit(
        model,
        flow_loss,
        len(seen.latents),
        recipe,
        state_file,
        seed=seed,
        minutes=minutes,
        prepare=prepare,
        progress=progress,
    )
    return model, outcome
