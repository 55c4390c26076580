"""What ventral voxels can read of each picture: flat features, or components of a network's stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from brainit.datasets.simulated import features, ventral
from brainit.datasets.simulated.anatomy import Cortex
from brainit.datasets.simulated.config import SimulationConfig

_BATCH = 64
_LEARN = 1024  # pictures that the components are learned from
_KEPT = 1024  # pictures whose components stay in memory (0.1 MB each): those that all subjects see


def standard(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scale each column to mean 0 and variance 1 over the reference rows; a constant column becomes 0."""
    mean, std = values[reference].mean(0, dtype=np.float64), values[reference].std(0, dtype=np.float64)
    flat = std < 1e-6
    return np.where(flat, 0, (values - mean) / np.where(flat, 1, std)).astype(np.float32)


@dataclass(frozen=True)
class Sight:
    """All pictures of a simulation, as its ventral voxels see them.

    Parameters
    ----------
    flat : float32 array of shape (n_pictures, N_LATENT), optional
        Standardised features, for voxels of the kind ``prototypes``.
    look : callable, optional
        Picture numbers to components, for voxels of the kind ``mixtures``.
    n_stages : int
    own : float
    seed : int
    """

    flat: np.ndarray | None = None
    look: Callable[[np.ndarray], list[np.ndarray]] | None = None
    n_stages: int = 0
    own: float = 0.0
    seed: int = 0
    kept: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def high(self, pictures: np.ndarray) -> np.ndarray | None:
        """Return flat features (n, N_LATENT) of pictures by number."""
        return None if self.flat is None else self.flat[pictures]

    def components(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Return components of pictures by number, (n, places, n_components) a stage."""
        assert self.look is not None
        new = np.array([p for p in pictures if p not in self.kept], int)
        found = self.look(new) if new.size else []
        row = {int(p): [stage[k] for stage in found] for k, p in enumerate(new)}
        out = [row.get(int(p)) or self.kept[int(p)] for p in pictures]
        for p in new[: max(0, _KEPT - len(self.kept))]:
            self.kept[int(p)] = row[int(p)]
        return [np.stack([stages[s] for stages in out]) for s in range(self.n_stages)]

    def mix(self, cortex: Cortex, voxel: np.ndarray, rng: np.random.Generator) -> ventral.Mixtures:
        """Give voxels of a subject their mixtures."""
        return ventral.mix(cortex, voxel, self.own, self.seed, rng, self.n_stages)


def flat_sight(config: SimulationConfig, images: np.ndarray, function: features.Features | None) -> Sight:
    """Look once at all pictures (n, side, side, 3), uint8."""
    parts = np.array_split(np.arange(len(images)), max(1, len(images) // _BATCH))
    latent = [features.latent(images[p].astype(np.float32) / 255, function) for p in parts]
    return Sight(standard(np.concatenate(latent), np.arange(config.n_pictures - config.n_test)))


def deep_sight(config: SimulationConfig, images: np.ndarray, maps: ventral.Maps | None) -> Sight:
    """Learn the components from training pictures; look at each picture when it is asked for."""
    maps = maps or features.random_maps

    def stages(pictures: np.ndarray) -> list[np.ndarray]:
        parts = np.array_split(pictures, max(1, len(pictures) // _BATCH))
        seen = [maps(images[p].astype(np.float32) / 255) for p in parts]
        return [np.concatenate([s[k] for s in seen]) for k in range(len(seen[0]))]

    n_train = config.n_pictures - config.n_test
    some = np.linspace(0, n_train - 1, min(_LEARN, n_train)).astype(int)
    learned = ventral.learn_stages(stages(some))
    return Sight(
        look=lambda pictures: learned.components(stages(pictures)),
        n_stages=len(learned.bases),
        own=config.own,
        seed=config.seed,
    )
