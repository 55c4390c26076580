"""What every training of a study starts from: the cohort, and how its members are read. Found once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from brainit.network.shared import SharedNetwork
from brainit.processes import Processes
from lab.decoding.cohort import Size
from lab.decoding.cohort.subjects import Cohort, Known, Member, begin, know
from lab.zoo import load_file
from lab.zoo.io import save_weights

BLANK, SHARED = "blank.safetensors", "shared.safetensors"


@dataclass(frozen=True)
class Ground:
    """Everything that trainings share; tensors on one device.

    Parameters
    ----------
    size : Size
    seed : int
    cohort : Cohort
    blank : SharedNetwork
        Untrained; it knows the token space, the prior over tuning and the clusters.
    known : list of Known
        All members but the newcomer.
    """

    size: Size
    seed: int
    cohort: Cohort
    blank: SharedNetwork
    known: list[Known]

    @property
    def new(self) -> Member:
        """The newcomer."""
        return self.cohort.members[-1]

    @property
    def sizes(self) -> dict[str, Any]:
        """Sizes of networks."""
        return dict(self.size.sizes)


def lay(size: Size, cohort: Cohort, seed: int, folder: Path, together: Processes | None = None) -> Ground:
    """Read the cohort; the untrained network is kept in ``folder`` and the same when a study goes on."""
    old, file = cohort.members[:-1], folder / BLANK
    together = together or Processes()
    if together.first and not file.is_file():
        sizes: dict[str, Any] = dict(size.sizes)
        save_weights(begin(old, cohort, seed, **sizes), file)
    together.wait()
    blank = open_network(file, cohort)
    tokens = cohort.seen.tokens
    known = know(blank, old, tokens, seed)
    return Ground(size, seed, cohort, blank, known)


def open_network(file: Path, cohort: Cohort) -> SharedNetwork:
    """Return a network that was kept, on the cohort's device."""
    network = load_file(file)[0]
    if not isinstance(network, SharedNetwork):
        raise TypeError(f"{file} holds a {type(network).__name__}")
    return network.to(cohort.seen.tokens.device)


def write(ground: Ground, file: Path) -> None:
    """Write for other processes of this call; such a file is never read in another."""
    torch.save(ground, file)


def read(file: Path) -> Ground:
    """Return what this call's first process wrote; tensors come back where they were."""
    found: Ground = torch.load(file, weights_only=False)
    return found
