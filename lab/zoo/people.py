"""The simulated people that a denoiser learns from, those it is tested with, and the pictures they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from brainit.datasets.simulated import features
from brainit.datasets.simulated.crowd import Person, answers, standard
from lab.progress import Progress, silent
from lab.zoo import load
from lab.zoo.cortex import cortex_maps, scorer_maps
from lab.zoo.data import Pictures, held_out, spaced
from lab.zoo.readers import Condition, Reader

VOXELS, SCANNED, EXTERNAL, SIMPLE, TESTED = 8000, 6000, 3600, 1000, 300
CONDITIONS = (
    Condition(0.05),
    Condition(0.1),
    Condition(0.2),
    Condition(0.4),
    Condition(0.2, share=0.25),  # a few hundred or thousand trials: tokens that shrink to the mean
    Condition(0.4, share=0.08),
)
TEST_CEILINGS = {
    "mixtures": (0.1, 0.3, 0.98),  # the last: all but free of noise
    "prototypes": (0.1, 0.3),
    "favourable": (0.1, 0.3),
}


def training_people(n_voxels: int) -> list[Person]:
    """Return people of another spread within kinds, and number of voxels, each."""
    sizes = ((0.3, 0.4), (0.5, 1.0), (0.7, 0.7), (0.9, 1.0))
    return [Person(k + 1, max(20, round(share * n_voxels)), own=own) for k, (own, share) in enumerate(sizes)]


def unseen_people(n_voxels: int) -> dict[str, Person]:
    """Return people that nothing is trained on, by name.

    The ventral voxels of ``favourable`` read the network that scores: it bounds what a richer cortex gives.
    """
    return {
        "mixtures": Person(101, n_voxels, own=0.7),
        "prototypes": Person(102, n_voxels, "prototypes"),
        "favourable": Person(103, n_voxels, own=0.7),
    }


@dataclass(frozen=True)
class Seen:
    """Pictures with what models make of them; on one device.

    Parameters
    ----------
    images : uint8 tensor of shape (n, 3, 64, 64)
        On the CPU. Scanned pictures first.
    latents : float16 tensor of shape (n, 8, 16, 16)
    tokens : float32 tensor of shape (n, 17 * 192)
    n_scanned : int
    """

    images: torch.Tensor
    latents: torch.Tensor
    tokens: torch.Tensor
    n_scanned: int


def training_pictures(data: Path, n_scanned: int, n_external: int, n_simple: int) -> tuple[torch.Tensor, int]:
    """Return uint8 pictures (n, 3, 64, 64) and the number of scanned ones, which come first.

    External pictures are natural ones with their mirror images, then digits and patterns.
    """
    # natural pictures come first in what is read; every other kind of order would tie scanned ones to a class
    read = spaced(data, n_scanned + n_external, n_simple).images
    order = torch.randperm(n_scanned + n_external, generator=torch.Generator().manual_seed(5))
    natural, simple = read[: len(order)][order], read[len(order) :]
    external = natural[n_scanned:]
    return torch.cat([natural, external.flip(-1), simple]), n_scanned


def tested_pictures(data: Path, n_scanned: int, n_external: int, n: int) -> tuple[torch.Tensor, int]:
    """Return the scanned pictures of training, then the first ``n`` held-out ones."""
    scanned, _ = training_pictures(data, n_scanned, n_external, 0)
    return torch.cat([scanned[:n_scanned], held_out(data, "natural").images[:n]]), n_scanned


@torch.no_grad()
def see(images: torch.Tensor, n_scanned: int, device: str, batch: int = 512, latents: bool = True) -> Seen:
    """Encode pictures; without ``latents`` there are none, where nothing is painted in training."""
    pictures = Pictures(images, torch.zeros(len(images)))
    autoencoder, encoder = load("autoencoder-64", device), load("encoder-64", device)
    found, tokens = [], []
    for index in torch.arange(len(images)).split(batch):
        x = pictures.batch(index).to(device)
        found.append(autoencoder.encode(x).half() if latents else torch.empty(len(x), 0))
        tokens.append(encoder(x).float().flatten(1))
    return Seen(images, torch.cat(found), torch.cat(tokens), n_scanned)


def read(
    people: list[Person],
    conditions: Sequence[Sequence[Condition]],
    seen: Seen,
    seed: int,
    progress: Progress = silent,
    favourable: bool = False,
) -> list[list[Reader]]:
    """Return each person's readers, one for every condition.

    ``favourable`` people read the network that scores pictures.
    """
    device = str(seen.tokens.device)
    high = None
    if any(p.ventral == "prototypes" for p in people):
        projected = features.project(seen.tokens.cpu().numpy())
        high = standard(projected, seen.n_scanned)
    deep = (scorer_maps if favourable else cortex_maps)(device)
    images = np.ascontiguousarray(seen.images.permute(0, 2, 3, 1).numpy())
    answered = answers(people, images, deep, high, seen.n_scanned, device, progress)
    out = []
    for k, (person, asked, rows) in enumerate(zip(people, conditions, answered, strict=True)):
        progress(k, len(people), "ridges to tokens")
        on_device = torch.from_numpy(rows).to(device)
        seeds = [seed * 1000 + person.seed * 10 + j for j in range(len(asked))]
        out.append(
            [Reader(on_device, seen.tokens, c, seen.n_scanned, s) for c, s in zip(asked, seeds, strict=True)]
        )
    progress(len(people), len(people), "ridges to tokens")
    return out
