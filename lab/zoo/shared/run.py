"""Train the network that ships; weights and card go into the zoo."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit.datasets.simulated.crowd import Person, answers
from brainit.io import fingerprint
from brainit.processes import Processes
from lab.progress import Progress, silent
from lab.zoo import load, null_tokens, people, weight_file
from lab.zoo.cortex import cortex_maps, scorer_maps
from lab.zoo.io import claim, save_weights
from lab.zoo.io import mark as weights_mark
from lab.zoo.people import Seen
from lab.zoo.shared import DENOISER, NAME, pupils, training
from lab.zoo.train import merge_card, options_of
from lab.zoo.train.denoiser import Conditioned
from lab.zoo.train.loop import Recipe

VOXELS, SCANNED, EXTERNAL = 4000, 6000, 3000
STAGE_1 = 0.6
"""Share of the time that stage 1 gets."""


def train(
    data: Path,
    out: Path,
    *,
    steps: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    minutes: float | None = None,
    voxels: int | None = None,
    scanned: int | None = None,
    external: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train both stages. Stopped at any time, the same command goes on where it was.

    Parameters
    ----------
    data : Path
        Folder with the training pictures.
    out : Path
        Folder of the training state.
    steps, batch : int, optional
        Of stage 1 instead of the recipe's; stage 2 gets a third of the steps and half the batch.
    minutes : float, optional
        Time budget of both stages together.
    voxels, scanned, external : int, optional
        Voxels of a person, pictures that people may be scanned with, further pictures.

    Returns
    -------
    dict
        The training part of the card.
    """
    sizes = {
        "voxels": voxels or VOXELS,
        "scanned": scanned or SCANNED,
        "external": EXTERNAL if external is None else external,
    }
    images, n_scanned = people.training_pictures(data, sizes["scanned"], sizes["external"], 0)
    mark = fingerprint(NAME, [images.numpy()])[:16]
    together = Processes.current(device)
    device = together.device(device)
    states = [out / f"{NAME}-{stage}.state.safetensors" for stage in (1, 2)]
    about = {"pictures": mark, "seed": seed, "steps": steps, "batch": batch, **sizes}
    about["weights"] = weights_mark(weight_file(DENOISER), weight_file("encoder-64"))
    claim(out / f"{NAME}.settings.json", about, f"a training of {NAME}", states)
    # mirror images of scanned pictures as well: the network meets each picture hundreds of times
    images = torch.cat([images, images[:n_scanned].flip(-1)])
    seen = people.see(images, n_scanned, device)
    answered = []
    for favourable in (False, True):
        answered += look(pupils.training_people(sizes["voxels"], favourable), seen, favourable, progress)
    network = pupils.begin(answered, seen, seed)
    group = pupils.pupils(network, answered, seen, seed, progress=progress)
    recipes = _recipes(steps, batch)
    shares = [None, None] if minutes is None else [minutes * STAGE_1, minutes * (1 - STAGE_1)]
    effort: dict[str, Any] = {"seed": seed, "progress": progress}
    n = len(seen.tokens)
    fresh = training.fresh_trials(group, seen, latents=False)
    first = training.train_tokens(network, fresh, n, states[0], recipes[0], minutes=shares[0], **effort)
    if together.first:
        save_weights(network, out / f"{NAME}-stage1.safetensors")
    painted = training.Painted(network, Conditioned(load(DENOISER, device), null_tokens(DENOISER)).to(device))
    fresh = training.fresh_trials(group, seen, latents=True)
    second = training.train_pictures(painted, fresh, n, states[1], recipes[1], minutes=shares[1], **effort)
    if together.first:
        save_weights(network, weight_file(NAME))
    given = {
        "steps": steps, "batch": batch, "minutes": minutes, "voxels": voxels, "scanned": scanned,
        "external": external, "seed": seed or None,
    }  # fmt: skip
    card = {
        "name": NAME,
        "parameters": sum(p.numel() for p in network.parameters()),
        "training": {
            "pictures": len(images),
            "seed": seed,
            "stage_1": _plain(recipes[0]) | asdict(first),
            "stage_2": _plain(recipes[1]) | asdict(second) | {"denoiser": f"{DENOISER}, frozen"},
            "command": f"brainlab zoo train {NAME}{options_of(**given)}",
            **pupils.about(sizes),
        },
    }
    if together.first:
        merge_card(NAME, card, drop=("newcomers",))
    together.wait()
    return card


def look(some: list[Person], seen: Seen, favourable: bool, progress: Progress = silent) -> list[torch.Tensor]:
    """Return what people's voxels answer, without noise, on the device of ``seen``."""
    device = str(seen.tokens.device)
    deep = (scorer_maps if favourable else cortex_maps)(device)
    images = np.ascontiguousarray(seen.images.permute(0, 2, 3, 1).numpy())
    found = answers(some, images, deep, None, seen.n_scanned, device, progress)
    return [torch.from_numpy(rows).to(device) for rows in found]


def _recipes(steps: int | None, batch: int | None) -> tuple[Recipe, Recipe]:
    first, second = training.TOKENS, training.PICTURES
    if steps is not None:
        first, second = replace(first, steps=steps), replace(second, steps=max(1, steps // 3))
    if batch is not None:
        first, second = replace(first, batch=batch), replace(second, batch=max(1, batch // 2))
    return first, second


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()}
