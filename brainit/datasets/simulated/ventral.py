"""Ventral voxels, each with a mixture of its own, read from maps of a deep network through a receptive field.

The answer of a voxel of hV4, LO, FFA or PPA is ``softplus(2 z) / 2``, with ``z`` the standardised sum::

    sum over places of receptive field * (mixture . components of the channels at that place)

Components are the whitened principal components of the channels of two neighbouring stages of the network:
the further down the stream, the later the stages and the larger the field. A voxel's mixture lies around one
of a few kinds, which are the same in all subjects, but most of it is the voxel's alone: real ventral cortex
is not made of a few dozen repeated detectors, and tokens can be read from it far better than from such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from brainit.datasets.simulated.anatomy import AREAS, Cortex
from brainit.datasets.simulated.tuning import fields

Maps = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Pictures (n, side, side, 3) in 0..1 to at least two stages (n, GRID * GRID, channels), early to late."""
GRID = 8
"""Stages are averaged to ``GRID`` x ``GRID`` places."""
KINDS = 48
N_COMPONENTS = 96
_FALL = -0.35  # weight of a component by its rank: the first ones count most, none is negligible
# how far into the network's stages an area reads: of ST-LPIPS' AlexNet the middle ones say most of a picture
_DEPTH = {"hV4": 0.0, "LO": 0.25, "FFA": 0.5, "PPA": 0.5}


@dataclass(frozen=True)
class Stages:
    """Whitening of each stage's channels: mean (c,) and basis (c, n_components), c their number."""

    means: tuple[np.ndarray, ...]
    bases: tuple[np.ndarray, ...]

    def components(self, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Turn stages (n, places, c) into whitened components: float32 (n, places, n_components) each."""
        return [
            (np.asarray(m, np.float32) - mean) @ basis
            for m, mean, basis in zip(maps, self.means, self.bases, strict=True)
        ]


def learn_stages(maps: Sequence[np.ndarray], n_components: int = N_COMPONENTS) -> Stages:
    """Learn the whitening from the stages of some hundred pictures; deterministic up to rounding."""
    means, bases = [], []
    for stage in maps:
        rows = np.asarray(stage, np.float64).reshape(-1, stage.shape[-1])
        mean = rows.mean(0)
        power, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        keep = np.argsort(power)[::-1][: min(n_components, len(power))]
        # an eigenvector's sign is arbitrary: fix it, so that machines agree on what a voxel prefers
        signs = np.sign(vectors[np.abs(vectors[:, keep]).argmax(0), keep])
        floor = 1e-6 * power.max() + 1e-12
        bases.append((vectors[:, keep] * signs / np.sqrt(power[keep] + floor)).astype(np.float32))
        means.append(mean.astype(np.float32))
    return Stages(tuple(means), tuple(bases))


@dataclass(frozen=True)
class Mixtures:
    """What the ventral voxels of one subject prefer.

    Parameters
    ----------
    voxel : int array of shape (n,)
        Which voxels of the subject these are.
    kind : int array of shape (n,)
    stage : int array of shape (n,)
        The earlier of the two stages that a voxel reads.
    weights : float32 array of shape (n, 2, n_components)
    field : float32 array of shape (n, GRID * GRID)
    """

    voxel: np.ndarray
    kind: np.ndarray
    stage: np.ndarray
    weights: np.ndarray
    field: np.ndarray


def mix(
    cortex: Cortex,
    voxel: np.ndarray,
    own: float,
    kinds_seed: int,
    rng: np.random.Generator,
    n_stages: int = 4,
    n_components: int = N_COMPONENTS,
) -> Mixtures:
    """Give each voxel in ``voxel`` (indices) its mixture.

    Parameters
    ----------
    own : float
        Share of a mixture that is the voxel's alone, 0..1; the rest is its kind.
    kinds_seed : int
        Subjects with the same one have the same kinds.
    """
    fall = np.arange(1, n_components + 1) ** _FALL
    common = np.random.default_rng([kinds_seed, 73]).standard_normal((KINDS, 2, n_components))
    areas = [AREAS[a] for a in cortex.area[voxel]]
    # the ventral areas prefer different kinds
    third = KINDS // 3
    offset = np.array(
        [third * max(0, ("LO", "FFA", "PPA").index(a)) if a != "hV4" else 0 for a in areas], int
    )
    kind = offset + rng.integers(0, third, voxel.size)
    alone = rng.standard_normal((voxel.size, 2, n_components))
    weights = ((1 - own) * common[kind] + own * alone) * fall
    depth = np.array([_DEPTH[a] for a in areas])
    # between two pairs of stages, some voxels read the one and some the other
    stage = np.floor(depth * max(0, n_stages - 2) + rng.random(voxel.size)).astype(int)
    return Mixtures(voxel, kind, stage, weights.astype(np.float32), fields(cortex, GRID)[voxel])


def drive(mixtures: Mixtures, components: Sequence[np.ndarray]) -> np.ndarray:
    """Sum over places and components: float32 (n_pictures, n), before standardising."""
    n = len(components[0])
    out = np.zeros((n, mixtures.voxel.size), np.float32)
    for stage in np.unique(mixtures.stage):
        here = np.flatnonzero(mixtures.stage == stage)
        for k in range(2):
            seen = components[min(stage + k, len(components) - 1)]
            width = seen.shape[-1]
            reads = mixtures.field[here][:, :, None] * mixtures.weights[here, k, None, :width]
            out[:, here] += seen.reshape(n, -1) @ reads.reshape(here.size, -1).T
    return out


def bend(z: np.ndarray) -> np.ndarray:
    """Answer to a standardised drive: ``softplus(2 z) / 2``."""
    return np.logaddexp(0, 2 * z) / 2
