"""Simulated people with no place in a brain: what decoders learn from and are tested with.

A decoder that is to serve any subject must meet many: voxels of other mixtures, numbers and ceilings. Here
they answer pictures in memory; nothing is written. The voxels are those of the datasets on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from brainit.datasets.simulated import anatomy, features, tuning, ventral
from brainit.datasets.simulated.config import SimulationConfig
from brainit.errors import InputError

Progress = Callable[[int, int, str], None]
_BATCH = 512
_LEARN = 1024


@dataclass(frozen=True)
class Person:
    """How one simulated person's visual cortex is drawn.

    Parameters
    ----------
    seed : int
        Layout, tuning and, of ``mixtures``, the kinds as well: persons share nothing.
    n_voxels : int
    ventral : str
        ``"mixtures"``: every ventral voxel has its own (`ventral`). ``"prototypes"``: 24 repeated ones over
        64 random projections of given features (`tuning`).
    own : float
        Of ``mixtures``: the share of a voxel's weights that is the voxel's alone, 0..1; of simple filters
        as well.
    kinds : int, optional
        Persons with the same one have the same kinds of voxels; default: nobody shares.
    placed : bool
        Whether voxels lie in a brain: areas and receptive fields then follow from where (`places`).
    """

    seed: int
    n_voxels: int
    ventral: Literal["mixtures", "prototypes"] = "mixtures"
    own: float = 0.7
    kinds: int | None = None
    placed: bool = False

    @property
    def common(self) -> int:
        """Seed of what persons of the same kinds share."""
        return self.seed if self.kinds is None else self.kinds

    def __post_init__(self) -> None:
        if self.n_voxels < 20 or not 0 <= self.own <= 1:
            raise InputError(
                f"simulated person: {self.n_voxels} voxels, own {self.own}; "
                "allowed: 20 voxels and more, own 0 to 1"
            )


@dataclass(frozen=True)
class _Drawn:
    tuned: tuning.Tuning
    field: np.ndarray
    mixtures: ventral.Mixtures | None


def _cortex(person: Person, rng: np.random.Generator) -> anatomy.Cortex:
    if not person.placed:
        return anatomy.without_places(person.n_voxels, rng)
    return anatomy.grow(SimulationConfig(n_voxels=person.n_voxels, resolution=2), rng)


def places(person: Person) -> np.ndarray:
    """Return where the voxels of a placed person lie, in mm: float64 (n_voxels, 3)."""
    cortex = _cortex(person, np.random.default_rng([person.seed, 77]))
    index = np.argwhere(cortex.inside)
    return index @ cortex.affine[:3, :3].T + cortex.affine[:3, 3]


def _draw(person: Person, n_stages: int, n_components: int) -> _Drawn:
    rng = np.random.default_rng([person.seed, 77])
    cortex = _cortex(person, rng)
    rich = person.ventral == "mixtures"
    shares = tuning.MIX_OF_MIXTURES if rich else tuning.MIX
    tuned = tuning.assign(cortex, tuning.prototypes(person.common), rng, shares, person.own if rich else 0)
    mixtures = None
    if rich:
        voxel = np.flatnonzero(tuned.kind == tuning.KINDS.index("feature"))
        mixtures = ventral.mix(cortex, voxel, person.own, person.common, rng, n_stages, n_components)
    return _Drawn(tuned, tuning.fields(cortex), mixtures)


def answers(
    people: Sequence[Person],
    images: np.ndarray,
    deep: ventral.Maps,
    high: np.ndarray | None,
    n_reference: int,
    device: str = "cpu",
    progress: Progress = lambda done, total, what: None,
) -> list[np.ndarray]:
    """Answer of every person's voxels to every picture, without noise.

    Parameters
    ----------
    images : uint8 array of shape (n, side, side, 3)
    deep : callable
        Stages of the network that ventral voxels of the kind ``mixtures`` read.
    high : float array of shape (n, N_LATENT), optional
        Standardised features for persons of the kind ``prototypes``.
    n_reference : int
        The first pictures; over them each answer has mean 0 and variance 1.
    device : str
        Where simple filters are computed; ``deep`` minds its own.

    Returns
    -------
    list of float32 array of shape (n, n_voxels)
        Voxels that do not respond are 0.

    Raises
    ------
    InputError
        A person needs ``high`` and there is none.
    """
    if high is None and any(p.ventral == "prototypes" for p in people):
        raise InputError("persons of the kind 'prototypes' need high-level features; give high")
    pick = np.linspace(0, n_reference - 1, min(_LEARN, n_reference)).astype(int)
    some = [deep(_floats(images[part])) for part in np.array_split(pick, max(1, len(pick) // _BATCH))]
    stages = ventral.learn_stages([np.concatenate([m[k] for m in some]) for k in range(len(some[0]))])
    drawn = [_draw(p, len(stages.bases), ventral.N_COMPONENTS) for p in people]
    out = [np.zeros((len(images), p.n_voxels), np.float32) for p in people]
    for start in range(0, len(images), _BATCH):
        progress(start, len(images), "simulated people look at the pictures")
        part = slice(start, start + _BATCH)
        batch = _floats(images[part])
        seen, components = features.maps(batch, device), stages.components(deep(batch))
        for d, rows in zip(drawn, out, strict=True):
            rows[part] = tuning.respond(
                d.tuned, d.field, seen, None if d.mixtures or high is None else high[part]
            )
            if d.mixtures:
                rows[part, d.mixtures.voxel] = ventral.drive(d.mixtures, components)
    for d, rows in zip(drawn, out, strict=True):
        if d.mixtures:
            voxel = d.mixtures.voxel
            rows[:, voxel] = ventral.bend(standard(rows[:, voxel], n_reference))
        rows[:] = standard(rows, n_reference)
    return out


def standard(values: np.ndarray, n_reference: int) -> np.ndarray:
    """Scale each column to mean 0 and variance 1 over the first rows; a constant column becomes 0."""
    mean = values[:n_reference].mean(0, dtype=np.float64)
    std = values[:n_reference].std(0, dtype=np.float64)
    flat = std < 1e-6
    return np.where(flat, 0, (values - mean) / np.where(flat, 1, std)).astype(np.float32)


def _floats(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255
