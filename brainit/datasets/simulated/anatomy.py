"""Where visual cortex lies in MNI space, and which part of the visual field each place sees.

A sketch with the right topology, not an atlas: V1 along the calcarine sulcus with the fovea at the occipital
pole, V2 and V3 as bands above (lower field) and below it (upper field) whose polar angle runs back at each
border, hV4 below them, then the lateral occipital, fusiform face and parahippocampal place areas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from brainit.datasets.simulated.config import SimulationConfig

AREAS = ("V1", "V2", "V3", "hV4", "LO", "FFA", "PPA")
_SHARE = {"V1": 0.26, "V2": 0.19, "V3": 0.15, "hV4": 0.12, "LO": 0.1, "FFA": 0.09, "PPA": 0.09}
SHARE_OF_MIXTURES = {"V1": 0.17, "V2": 0.14, "V3": 0.12, "hV4": 0.12, "LO": 0.17, "FFA": 0.14, "PPA": 0.14}
"""Share of each area where ventral voxels are as many as in a mask of all visual cortex."""
# centre (|x|, y, z) and radii in mm of the areas that are not bands along the calcarine sulcus
_BLOBS = {
    "hV4": ((27.0, -76.0, -12.0), (11.0, 11.0, 9.0)),
    "LO": ((42.0, -76.0, 2.0), (10.0, 12.0, 12.0)),
    "FFA": ((41.0, -52.0, -18.0), (9.0, 11.0, 9.0)),
    "PPA": ((25.0, -45.0, -9.0), (9.0, 11.0, 9.0)),
}
# receptive-field size in degrees: at the fovea, and its growth a degree of eccentricity
_SIZE = {
    "V1": (0.25, 0.1),
    "V2": (0.35, 0.16),
    "V3": (0.5, 0.22),
    "hV4": (0.8, 0.35),
    "LO": (1.2, 0.4),
    "FFA": (1.8, 0.45),
    "PPA": (2.4, 0.5),
}
FIELD = 4.2
"""Half the width of the pictures, in degrees of visual angle."""


@dataclass(frozen=True)
class Cortex:
    """The measured voxels of one subject.

    Parameters
    ----------
    inside : bool array of shape (X, Y, Z)
        Mask on the cropped grid.
    affine : array of shape (4, 4)
    area : int array of shape (n_voxels,)
        Index into ``AREAS``, voxels in C order of the mask.
    x, y, sigma : float arrays of shape (n_voxels,)
        Receptive field in degrees: right of fixation, above it, and its standard deviation.
    """

    inside: np.ndarray
    affine: np.ndarray
    area: np.ndarray
    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray


def grow(config: SimulationConfig, rng: np.random.Generator) -> Cortex:
    """Lay out one subject's visual cortex within the MNI152 grey matter that ships with nilearn.

    Areas are shifted by a few mm, and the retinotopic map rotated and stretched, differently in each subject.
    """
    index, xyz, grey_affine = _back_of_the_brain(config.resolution)
    xyz = xyz - rng.normal(0, 1.5, 3)
    area, angle, eccentricity = _areas(xyz)
    shares = SHARE_OF_MIXTURES if config.ventral == "mixtures" else _SHARE
    chosen = _choose(area, config.n_voxels, shares, rng)
    low = index[chosen].min(0) - 1
    shape = index[chosen].max(0) - low + 2
    inside = np.zeros(shape, bool)
    inside[tuple((index[chosen] - low).T)] = True
    # argwhere gave the voxels in C order and ``chosen`` is sorted, so they already are in the mask's order
    affine = grey_affine @ np.vstack([np.c_[np.eye(3), low], [0, 0, 0, 1]])
    area, angle, eccentricity = area[chosen], angle[chosen], eccentricity[chosen]
    angle = angle + np.deg2rad(rng.normal(0, 6))
    eccentricity = eccentricity * rng.uniform(0.85, 1.15)
    side = np.sign(xyz[chosen, 0] + 1e-9)
    # the left hemisphere sees the right half of the field; single voxels scatter around the map
    scatter = 0.15 + 0.05 * eccentricity
    x = -side * eccentricity * np.cos(angle) + rng.normal(0, 1, angle.size) * scatter
    y = eccentricity * np.sin(angle) + rng.normal(0, 1, angle.size) * scatter
    sigma = np.zeros(area.size)
    for name, (base, slope) in _SIZE.items():
        here = area == AREAS.index(name)
        sigma[here] = base + slope * eccentricity[here]
    sigma *= np.exp(rng.normal(0, 0.15, sigma.size))
    return Cortex(inside, affine, area, np.clip(x, -5.5, 5.5), np.clip(y, -5.5, 5.5), sigma)


def without_places(n_voxels: int, rng: np.random.Generator) -> Cortex:
    """Draw areas and receptive fields alone, voxels in a row: enough where nothing is mapped to a brain.

    Fields lie evenly over the picture, as in a mask of voxels that were chosen because they answer pictures.
    """
    area = rng.choice(len(AREAS), n_voxels, p=list(SHARE_OF_MIXTURES.values()))
    reach = FIELD * np.where(area <= AREAS.index("hV4"), 1, 0.7)
    x, y = rng.uniform(-1, 1, (2, n_voxels)) * reach
    eccentricity = np.hypot(x, y)
    sigma = np.zeros(n_voxels)
    for name, (base, slope) in _SIZE.items():
        here = area == AREAS.index(name)
        sigma[here] = base + slope * eccentricity[here]
    sigma *= np.exp(rng.normal(0, 0.15, n_voxels))
    return Cortex(np.ones((n_voxels, 1, 1), bool), np.eye(4), area, x, y, sigma)


@lru_cache(maxsize=3)
def _back_of_the_brain(resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid index, place in mm and affine of the grey matter from which voxels are taken."""
    from nibabel.affines import apply_affine
    from nilearn.datasets import load_mni152_gm_mask

    grey = load_mni152_gm_mask(resolution=resolution)
    index = np.argwhere(np.asarray(grey.dataobj) != 0)
    xyz = apply_affine(grey.affine, index)
    back = (xyz[:, 1] < -32) & (np.abs(xyz[:, 2] - 2) < 36)
    return index[back], xyz[back], grey.affine


def _areas(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Area (-1 for none), polar angle (0 horizontal, up positive) and eccentricity of each place."""
    lateral, posterior = np.abs(xyz[:, 0]), xyz[:, 1]
    area = np.full(len(xyz), -1)
    angle, eccentricity = np.zeros(len(xyz)), np.zeros(len(xyz))
    along = np.clip((posterior + 102) / 40, 0, 1)  # 0 at the occipital pole, 1 at the front of V1
    above = xyz[:, 2] - (-4 + 12 * along)
    height, bank = np.abs(above), -np.sign(above)
    early = (lateral < 27) & (posterior < -60)
    for name, low, high in (("V1", 0, 10), ("V2", 10, 18), ("V3", 18, 27)):
        here = early & (height >= low) & (height < high)
        part = (height[here] - low) / (high - low)
        # the horizontal meridian lies in the sulcus, the vertical one at V1/V2, the horizontal again at V2/V3
        angle[here] = bank[here] * np.pi / 2 * (1 - part if name == "V2" else part)
        area[here] = AREAS.index(name)
        eccentricity[here] = _magnified(along[here])
    for name, (centre, radii) in _BLOBS.items():
        offset = (np.c_[lateral, xyz[:, 1:]] - centre) / radii
        here = ((offset**2).sum(1) < 1) & ((area < 0) | (name == "hV4"))
        area[here] = AREAS.index(name)
        angle[here] = np.pi / 2 * np.clip(offset[here, 0], -1, 1)
        eccentricity[here] = _magnified(np.clip((offset[here, 1] + 1) / 2, 0, 1)) * (
            1 if name == "hV4" else 0.4
        )
    return area, angle, eccentricity


def _magnified(part: np.ndarray) -> np.ndarray:
    """Eccentricity in degrees at a share of the way from fovea to periphery: cortex magnifies the fovea."""
    return 5.0 * np.expm1(1.8 * part) / np.expm1(1.8)


def _choose(
    area: np.ndarray, n_voxels: int, shares: Mapping[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Pick voxels so that each area has its share; what an area lacks is taken from the others."""
    picked = np.zeros(area.size, bool)
    for code, name in enumerate(AREAS):
        here = np.flatnonzero(area == code)
        picked[rng.permutation(here)[: round(shares[name] * n_voxels)]] = True
    rest = rng.permutation(np.flatnonzero((area >= 0) & ~picked))
    picked[rest[: max(0, n_voxels - int(picked.sum()))]] = True
    chosen = np.flatnonzero(picked)
    return np.sort(rng.permutation(chosen)[:n_voxels])
