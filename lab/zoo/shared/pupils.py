"""Simulated people as the shared network meets them: scanned a few times or often, then read.

Also how the network begins: its token space, the prior over tuning and its clusters come from these people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from brainit.datasets.simulated.crowd import Person
from brainit.network.shared import SharedNetwork, Voxels
from brainit.training.newcomer import Reading, read
from brainit.voxels.tuning import TokenSpace, fit_prior, fit_tuning
from lab.progress import Progress, silent
from lab.zoo.people import Seen
from lab.zoo.readers import Scanner

CEILINGS = (0.05, 0.1, 0.2, 0.35)
TRIALS = (150, 300, 600, 1500, 3000)
_PRIOR_TRIALS = 3000
_CLUSTERED = 8000


def training_people(n_voxels: int, favourable: bool) -> list[Person]:
    """Return six people; the ventral voxels of ``favourable`` ones read the network that scores."""
    first = 41 if favourable else 31
    return [Person(first + k, n_voxels, own=own) for k, own in enumerate((0.3, 0.5, 0.6, 0.7, 0.8, 0.9))]


@dataclass(frozen=True)
class Pupil:
    """One person read from so many trials at one ceiling."""

    scanner: Scanner
    mean: torch.Tensor
    scale: torch.Tensor
    scanned: torch.Tensor
    trials: torch.Tensor
    reading: Reading
    voxels: Voxels

    @classmethod
    def scan(
        cls, network: SharedNetwork, answers: torch.Tensor, seen: Seen, ceiling: float, n: int, seed: int
    ) -> Pupil:
        """Scan ``n`` of the pictures once and read the person; tokens of the rest are not looked at."""
        scanner = Scanner(answers, ceiling, seed)
        draw = torch.Generator(device=answers.device).manual_seed(seed)
        index = torch.randperm(seen.n_scanned, generator=draw, device=answers.device)[:n]
        raw = scanner.look(index, 1, draw)
        mean, scale = raw.mean(0), raw.std(0) + 1e-6
        trials = (raw - mean) / scale
        reading = read(trials, seen.tokens[index], network.space, network.prior, seed)
        return cls(scanner, mean, scale, index, trials, reading, as_voxels(network, reading))

    def look(
        self, index: torch.Tensor, repeats: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return z-scored voxels for fresh presentations."""
        return (self.scanner.look(index, repeats, generator) - self.mean) / self.scale


def as_voxels(network: SharedNetwork, reading: Reading) -> Voxels:
    """Return what the network needs of a subject that was read."""
    labels = network.assign(reading.tuning)
    n_clusters = network.config["n_clusters"]
    return Voxels.of(reading.tuning.evidence, labels, n_clusters, reading.readout, reading.offset)


def begin(answered: Sequence[torch.Tensor], seen: Seen, seed: int, **sizes: Any) -> SharedNetwork:
    """Return the untrained network with token space, prior and clusters learned from people."""
    device = seen.tokens.device
    torch.manual_seed(seed)
    network = SharedNetwork(**sizes).to(device)
    n = network.config["n_components"]
    # true pictures alone say what is common; digits and patterns lie behind the scanned ones
    space = TokenSpace.fit(seen.tokens[: seen.n_scanned], n)
    points = space.points(seen.tokens)
    data = []
    for k, answers in enumerate(answered):
        scanner = Scanner(answers, 0.3, seed * 1000 + k)
        draw = torch.Generator(device=device).manual_seed(seed * 1000 + k)
        index = torch.randperm(seen.n_scanned, generator=draw, device=device)[:_PRIOR_TRIALS]
        raw = scanner.look(index, 1, draw)
        own = points[index]
        data.append((own - own.mean(0), (raw - raw.mean(0)) / (raw.std(0) + 1e-6)))
    prior = fit_prior(data, n)
    tuned = [fit_tuning(*one, prior).weights.T for one in data]
    network.know(space, prior, centres(torch.cat(tuned), network.config["n_clusters"], seed))
    return network


def centres(weights: torch.Tensor, n_clusters: int, seed: int) -> torch.Tensor:
    """Cluster voxels by direction of tuning (spherical k-means): unit vectors (n_clusters, n_components)."""
    from brainit.voxels.clusters import kmeans_clusters

    draw = torch.Generator().manual_seed(seed)
    loud = weights.square().sum(1)
    heard = torch.nonzero(loud > loud.median() * 0.1)[:, 0].cpu()
    some = weights[heard[torch.randperm(len(heard), generator=draw)[:_CLUSTERED]]].cpu()
    labels = torch.from_numpy(kmeans_clusters({"all": some.numpy()}, n_clusters, seed=seed).labels["all"])
    unit = F.normalize(some, dim=1)
    sums = torch.zeros(n_clusters, some.shape[1]).index_add_(0, labels, unit)
    return F.normalize(sums, dim=1).to(weights.device)


def pupils(
    network: SharedNetwork,
    answered: Sequence[torch.Tensor],
    seen: Seen,
    seed: int,
    ceilings: Sequence[float] = CEILINGS,
    trials: Sequence[int] = TRIALS,
    progress: Progress = silent,
) -> list[Pupil]:
    """Read every person at every ceiling, with each number of trials in turn."""
    out, jobs = [], [(a, c) for a in range(len(answered)) for c in range(len(ceilings))]
    for k, (a, c) in enumerate(jobs):
        progress(k, len(jobs), "reading simulated people")
        n = min(trials[(a + c + k // len(trials)) % len(trials)], seen.n_scanned // 2)
        out.append(Pupil.scan(network, answered[a], seen, ceilings[c], n, seed * 10_000 + 100 * a + c))
    progress(len(jobs), len(jobs), "reading simulated people")
    return out


def about(sizes: dict[str, int]) -> dict[str, Any]:
    """Return what a card says of those that the network learned from."""
    people = [training_people(sizes["voxels"], kind) for kind in (False, True)]
    return {
        "people": {
            "reading ST-LPIPS' AlexNet": [asdict(p) for p in people[0]],
            "reading EfficientNet-Lite0, the network that scores": [asdict(p) for p in people[1]],
        },
        "ceilings": CEILINGS,
        "trials": TRIALS,
        **sizes,
    }
