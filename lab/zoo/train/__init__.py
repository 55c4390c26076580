"""Train a model of the zoo and write its weights and the training part of its card."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from brainit.errors import InputError
from lab.zoo import DENOISERS, load, weight_file
from lab.zoo.train.loop import Progress


def run(
    name: str,
    data: Path,
    out: Path | None = None,
    *,
    steps: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    minutes: float | None = None,
    limit: int | None = None,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:
    """Train the zoo model ``name`` on the pictures below ``data``.

    Stopped at any time, the same command goes on where it was (state in ``out/NAME.state.safetensors``).

    Parameters
    ----------
    out : Path, optional
        Folder of the training state; ``runs/zoo`` by default. Weights go to the zoo itself.
    steps, batch : int, optional
        Override the recipe.
    minutes : float, optional
        Time budget; training ends when it is used up.
    limit : int, optional
        Use only the first natural pictures (for a trial).

    Returns
    -------
    dict
        The training part of the card.
    """
    from lab.zoo import summary
    from lab.zoo.data import training
    from lab.zoo.io import save_weights

    summary(name)  # refuses an unknown name before any work
    state = (out or Path("runs/zoo")) / f"{name}.state.safetensors"
    pictures = training(data, limit=limit).to(device)
    options: dict[str, Any] = {"seed": seed, "minutes": minutes, "progress": progress}
    extra = {}
    if name in DENOISERS:
        from lab.zoo.train import denoiser as module

        recipe = _changed(module.RECIPES[name], steps, batch)
        latents, tokens = module.encode_all(pictures, load("autoencoder-64", device), load("encoder-64", device))
        model, outcome = module.train(name, latents, tokens, state, recipe, **options)
        extra, model = {"null": model.null}, model.denoiser
    else:
        module = _module(name)
        recipe = _changed(module.RECIPE, steps, batch)
        model, outcome = module.train(pictures, state, recipe, **options)
    save_weights(model, weight_file(name), extra)
    card = {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": {
            "pictures": len(pictures),
            "data": "tiny-imagenet-64 train, MNIST test digits without digits69's stimuli, procedural patterns",
            "seed": seed,
            "recipe": asdict(recipe),
            **asdict(outcome),
            "seconds": round(outcome.seconds, 1),
            "command": f"brainlab zoo train {name}",
        },
    }
    merge_card(name, card)
    return card


def _changed(recipe, steps, batch):
    changes = {k: v for k, v in (("steps", steps), ("batch", batch)) if v is not None}
    for key, value in changes.items():
        if value < 1:
            raise InputError(f"{key} is {value}; it must be at least 1")
    return replace(recipe, **changes)


def _module(name: str):
    if name == "autoencoder-64":
        from lab.zoo.train import autoencoder as module
    elif name == "encoder-64":
        from lab.zoo.train import encoder as module
    else:
        from lab.zoo.train import structure as module
    return module


def merge_card(name: str, part: dict[str, Any]) -> None:
    """Write ``part`` over what a model's card (``cards/NAME.json``) says."""
    from lab.zoo import HOME, info

    path = HOME / "cards" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(info(name) | part, indent=1) + "\n")
    os.replace(partial, path)
