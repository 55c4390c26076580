"""The subjects of a study, in memory: what they saw, how they answered, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from brainit.datasets.simulated.crowd import Person, answers, places
from brainit.network.shared import SharedNetwork, Voxels
from brainit.training.newcomer import Reading, read
from brainit.voxels.clusters import anatomical_clusters, random_clusters
from brainit.voxels.tuning import TokenSpace, fit_prior, fit_tuning
from lab.decoding.cohort import Size
from lab.progress import Progress, silent
from lab.zoo import people
from lab.zoo.cortex import scorer_maps
from lab.zoo.people import Seen
from lab.zoo.readers import Scanner
from lab.zoo.shared.pupils import as_voxels, centres

REPEATS = 3
_KINDS = 900
_LEAST_CROP = 0.6  # of a picture's side
_LEAST_SHARED = 4  # one in so many training pictures is seen by all


@dataclass(frozen=True)
class Member:
    """One subject's measurements; tensors on one device.

    Parameters
    ----------
    index : int64 tensor of shape (n_trials,)
        Picture of each training trial, among all.
    trials, test : float32 tensors of shape (n_trials, n_voxels), (n_test, n_voxels)
        z-scored by the training trials; test trials are means of repeats.
    xyz : array of shape (n_voxels, 3)
    ceiling : float
        Of one trial.
    scanner : Scanner
        Answers without noise, and further trials.
    mean, scale : float32 tensors of shape (n_voxels,)
        Of the training trials before z-scoring.
    clear_test : float32 tensor of shape (n_test, n_voxels)
        Test trials without noise.
    """

    name: str
    index: torch.Tensor
    trials: torch.Tensor
    test: torch.Tensor
    xyz: np.ndarray
    ceiling: float
    scanner: Scanner
    mean: torch.Tensor
    scale: torch.Tensor
    clear_test: torch.Tensor

    def first(self, n: int) -> Member:
        """Return the same subject with its first trials alone, z-scored by these."""
        trials = self.trials[:n]
        mean, scale = trials.mean(0), trials.std(0) + 1e-6
        return replace(
            self,
            index=self.index[:n],
            trials=(trials - mean) / scale,
            test=(self.test - mean) / scale,
            mean=self.mean + self.scale * mean,
            scale=self.scale * scale,
            clear_test=(self.clear_test - mean) / scale,
        )


@dataclass(frozen=True)
class Cohort:
    """All subjects, and the pictures: scanned, external, those of the test, further external ones."""

    members: list[Member]
    seen: Seen
    external: torch.Tensor
    tested: torch.Tensor


@dataclass(frozen=True)
class Known:
    """A member with what was found of its voxels."""

    member: Member
    reading: Reading
    voxels: Voxels


def gather(size: Size, data: Path | None, seed: int, device: str, progress: Progress = silent) -> Cohort:
    """Scan the cohort: pictures of ``data``, or those that ship."""
    looked, further = _pictures(size, data, device)
    n = len(looked) - size.n_test
    seen = people.see(torch.cat([looked, further]), size.n_pool, device)
    crowd = [
        Person(seed * 100 + 301 + k, size.n_voxels, own=0.7, kinds=seed * 100 + _KINDS, placed=True)
        for k in range(size.n_subjects)
    ]
    shown = np.ascontiguousarray(looked.permute(0, 2, 3, 1).numpy())
    answered = answers(crowd, shown, scorer_maps(device), None, size.n_pool, device, progress)
    tested = torch.arange(n, len(looked), device=device)
    external = torch.cat(
        [torch.arange(size.n_pool, n), torch.arange(len(looked), len(looked) + len(further))]
    ).to(device)
    members = []
    for k, (person, rows) in enumerate(zip(crowd, answered, strict=True)):
        low, high = size.ceilings
        ceiling = low + (high - low) * k / max(1, size.n_subjects - 1)
        draw = torch.Generator().manual_seed(person.seed)
        everybody = torch.arange(size.n_trials // _LEAST_SHARED)
        others = torch.randperm(size.n_pool - len(everybody), generator=draw) + len(everybody)
        index = torch.cat([everybody, others[: size.n_trials - len(everybody)]])
        index = index[torch.randperm(len(index), generator=draw)].to(device)
        scanner = Scanner(torch.from_numpy(rows).to(device), ceiling, person.seed)
        noise = torch.Generator(device=device).manual_seed(person.seed)
        raw, test = scanner.look(index, 1, noise), scanner.look(tested, REPEATS, noise)
        mean, scale = raw.mean(0), raw.std(0) + 1e-6
        members.append(
            Member(
                f"sub-{k + 1:02d}",
                index,
                (raw - mean) / scale,
                (test - mean) / scale,
                places(person),
                ceiling,
                scanner,
                mean,
                scale,
                (scanner.clear(tested) - mean) / scale,
            )
        )
    return Cohort(members, seen, external, tested)


def _pictures(size: Size, data: Path | None, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures that people look at (scanned, external, tested) and further external ones."""
    if data is None:
        from lab.zoo import stimuli

        shipped = torch.from_numpy(stimuli.load()[0]).permute(0, 3, 1, 2)
        pool, test = shipped[: size.n_pool], shipped[size.n_pool : size.n_pool + size.n_test]
        return torch.cat([pool, pool.flip(-1), test]), _crops(pool, size.crops, device)
    training, _ = people.training_pictures(data, size.n_pool, size.n_external, 0)
    tested, n = people.tested_pictures(data, size.n_pool, size.n_external, size.n_test)
    natural = training[: size.n_pool + size.n_external]
    further = torch.cat([natural[: size.n_pool].flip(-1), _crops(natural, size.crops, device)])
    return torch.cat([training, tested[n:]]), further


def _crops(pictures: torch.Tensor, n: int, device: str, batch: int = 1000) -> torch.Tensor:
    """Return ``n`` enlarged square parts of uint8 pictures (k, 3, side, side), every other one mirrored."""
    if not n:
        return pictures[:0]
    draw = torch.Generator().manual_seed(7)
    scale = _LEAST_CROP + (1 - _LEAST_CROP) * torch.rand(n, generator=draw)
    centre = (2 * torch.rand(n, 2, generator=draw) - 1) * (1 - scale[:, None])
    mirror = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = scale * mirror, scale, centre
    out = []
    for rows in torch.arange(n).split(batch):
        x = pictures[rows % len(pictures)].to(device).float()
        grid = F.affine_grid(affine[rows].to(device), list(x.shape), align_corners=False)
        seen = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        out.append(seen.clamp(0, 255).round().to(torch.uint8).cpu())
    return torch.cat(out)


def begin(
    members: Sequence[Member], cohort: Cohort, seed: int, alone: bool = False, **sizes: Any
) -> SharedNetwork:
    """Return an untrained network that knows what these members' training trials say.

    ``alone``: nobody else teaches what voxels are tuned to, the prior is flat.
    """
    torch.manual_seed(seed)
    network = SharedNetwork(**sizes)
    tokens = cohort.seen.tokens
    network.to(tokens.device)
    space = TokenSpace.fit(
        tokens[torch.cat([m.index for m in members]).unique()], network.config["n_components"]
    )
    n = len(space.back)
    if n < network.config["n_components"]:
        return begin(members, cohort, seed, alone, **(sizes | {"n_components": n}))
    points = [space.points(tokens[m.index]) for m in members]
    data = [(p - p.mean(0), m.trials) for p, m in zip(points, members, strict=True)]
    prior = torch.eye(n).to(tokens) if alone else fit_prior(data, n)
    tuned = torch.cat([fit_tuning(*one, prior).weights.T for one in data])
    network.know(space, prior, centres(tuned, network.config["n_clusters"], seed))
    return network


def know(network: SharedNetwork, members: Sequence[Member], tokens: torch.Tensor, seed: int) -> list[Known]:
    """Read members; their voxels are in the functional clusters of the network."""
    out = []
    for member in members:
        reading = read(member.trials, tokens[member.index], network.space, network.prior, seed)
        out.append(Known(member, reading, as_voxels(network, reading)))
    return out


def reclustered(network: SharedNetwork, known: Sequence[Known], clusters: str, seed: int) -> list[Known]:
    """Return the same readings with voxels in other clusters: anatomical or random."""
    k = network.config["n_clusters"]
    xyz = {one.member.name: one.member.xyz for one in known}
    if clusters == "anatomical":
        found = anatomical_clusters(xyz, k, seed=seed)
    else:
        found = random_clusters({name: len(own) for name, own in xyz.items()}, k, seed=seed)
    out = []
    for one in known:
        labels, r = torch.from_numpy(found.labels[one.member.name]), one.reading
        out.append(replace(one, voxels=Voxels.of(r.tuning.evidence, labels, k, r.readout, r.offset)))
    return out
