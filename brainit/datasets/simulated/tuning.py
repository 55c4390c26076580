"""What each voxel prefers, and how it answers a picture.

A few dozen prototypes of tuning, grouped into functional kinds, are the same for all subjects; which voxel
follows which prototype, and how exactly, differs between subjects. A voxel's answer is::

    pooled = sum over places of receptive field * (tuning . feature map)
    answer = sqrt(pooled)          energy, contrast, curvature (compressive, as measured)
           = max(pooled, 0)^0.7    luminance, colour (one sign each, on or off, a hue or its opposite)
           = softplus(2 pooled)/2  feature (tuning . high-level features; no place)
           = 0                     noise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brainit.datasets.simulated import features
from brainit.datasets.simulated.anatomy import AREAS, FIELD, Cortex

KINDS = ("energy", "luminance", "contrast", "colour", "curvature", "feature", "noise")
MIX = {  # share of each kind in an area, in the order of ``KINDS``
    "V1": (0.60, 0.12, 0.12, 0.06, 0.00, 0.00, 0.10),
    "V2": (0.44, 0.08, 0.18, 0.10, 0.10, 0.00, 0.10),
    "V3": (0.28, 0.06, 0.26, 0.08, 0.20, 0.00, 0.12),
    "hV4": (0.00, 0.00, 0.12, 0.42, 0.34, 0.00, 0.12),
    "LO": (0.00, 0.00, 0.00, 0.00, 0.20, 0.65, 0.15),
    "FFA": (0.00, 0.00, 0.00, 0.00, 0.00, 0.85, 0.15),
    "PPA": (0.00, 0.00, 0.00, 0.00, 0.00, 0.85, 0.15),
}
MIX_OF_MIXTURES = MIX | {  # where ventral voxels read deep features through receptive fields, hV4 does too
    "hV4": (0.00, 0.00, 0.06, 0.20, 0.14, 0.50, 0.10),
    "LO": (0.00, 0.00, 0.00, 0.00, 0.05, 0.80, 0.15),
}
_PROTOTYPES = {"energy": 18, "luminance": 2, "contrast": 2, "colour": 6, "curvature": 6, "feature": 24}


@dataclass(frozen=True)
class Tuning:
    """Preference of each voxel: ``kind`` indexes ``KINDS``, ``weights`` one vector a voxel of each kind."""

    kind: np.ndarray
    prototype: np.ndarray
    weights: dict[str, np.ndarray]


def prototypes(seed: int) -> dict[str, np.ndarray]:
    """Tuning vectors that all subjects of one simulation share, (n_prototypes, n_channels) a kind."""
    rng = np.random.default_rng([seed, 71])
    hue = np.arange(6) * np.pi / 3
    sparse = rng.standard_normal((_PROTOTYPES["feature"], features.N_LATENT))
    sparse *= rng.random(sparse.shape) < 0.2
    energy = np.zeros((3, 6, 3, 6))
    for scale in range(3):
        for k in range(6):  # neighbouring orientations answer a little
            energy[scale, k, scale, [k, (k + 1) % 6, (k - 1) % 6]] = 1, 0.25, 0.25
    return {
        "energy": energy.reshape(18, 18),
        "luminance": np.array([[1.0], [-1.0]]),
        "contrast": np.eye(2),
        "colour": np.c_[np.cos(hue), np.sin(hue)],
        "curvature": np.eye(6),
        "feature": sparse / np.maximum(np.linalg.norm(sparse, axis=1, keepdims=True), 1e-9),
    }


def assign(
    cortex: Cortex,
    shared: dict[str, np.ndarray],
    rng: np.random.Generator,
    shares: Mapping[str, Sequence[float]] = MIX,
    own: float = 0.0,
) -> Tuning:
    """Give each voxel of a subject a kind by its area, a prototype of it, and some difference of its own.

    ``shares`` says how much of an area each of ``KINDS`` takes; ``own`` how much of a voxel's weights on
    simple filters is the voxel's alone, 0..1: a measured voxel pools many columns, never a single filter.
    """
    n = cortex.area.size
    kind, prototype = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for code, name in enumerate(AREAS):
        here = np.flatnonzero(cortex.area == code)
        kind[here] = rng.choice(len(KINDS), here.size, p=shares[name])
    weights = {}
    for code, name in enumerate(KINDS[:-1]):
        here = np.flatnonzero(kind == code)
        n_prototypes = len(shared[name])
        if name == "feature":  # the three ventral areas prefer different features
            third = n_prototypes // 3
            offset = third * np.clip(cortex.area[here] - AREAS.index("LO"), 0, 2)
            prototype[here] = offset + rng.integers(0, third, here.size)
        else:
            prototype[here] = rng.integers(0, n_prototypes, here.size)
        base = shared[name][prototype[here]]
        apart = rng.standard_normal(base.shape) * 0.3 / np.sqrt(base.shape[1])
        signed = name in ("luminance", "colour", "feature")
        # energies are not negative, so neither are the weights on them
        found = base + apart if signed else np.abs(base + apart)
        if own:
            alone = rng.standard_normal(base.shape)
            if not signed:
                alone = np.abs(alone) * (rng.random(base.shape) < 0.3) + 0.02
            found = (1 - own) * found + own * alone
        weights[name] = found.astype(np.float32)
    return Tuning(kind, prototype, weights)


def fields(cortex: Cortex, grid: int = features.GRID) -> np.ndarray:
    """Receptive fields on a grid over the picture, each summing to 1: float32 (n_voxels, grid * grid)."""
    centre = (np.arange(grid) + 0.5) / grid * 2 - 1
    column, row = np.meshgrid(centre * FIELD, -centre * FIELD)  # row 0 is the top of the picture
    apart = (column.ravel() - cortex.x[:, None]) ** 2 + (row.ravel() - cortex.y[:, None]) ** 2
    gauss = np.exp(-apart / (2 * cortex.sigma[:, None] ** 2)) + 1e-9
    return (gauss / gauss.sum(1, keepdims=True)).astype(np.float32)


def respond(
    tuning: Tuning, field: np.ndarray, seen: dict[str, np.ndarray], high: np.ndarray | None
) -> np.ndarray:
    """Answer of every voxel to every picture, without noise: float32 (n_pictures, n_voxels).

    Parameters
    ----------
    tuning : Tuning
    field : array of shape (n_voxels, GRID * GRID)
    seen : dict of feature maps, as ``features.maps`` gives them
    high : array of shape (n_pictures, N_LATENT), optional
        Standardised high-level features; without them voxels of the kind ``feature`` are left at 0.
    """
    n = len(seen["luminance"])
    out = np.zeros((n, tuning.kind.size), np.float32)
    for code, name in enumerate(KINDS[:-1]):
        here = np.flatnonzero(tuning.kind == code)
        if not here.size:
            continue
        weights = tuning.weights[name]
        if name == "feature":
            if high is None:
                continue
            out[:, here] = np.logaddexp(0, 2 * (high @ weights.T)) / 2
            continue
        pooled = np.zeros((n, here.size), np.float32)
        for channel in range(weights.shape[1]):
            pooled += (seen[name][:, :, channel] @ field[here].T) * weights[:, channel]
        out[:, here] = np.maximum(pooled, 0) ** (0.7 if name in ("luminance", "colour") else 0.5)
    return out
