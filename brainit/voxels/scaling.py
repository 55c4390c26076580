"""Standardise voxels with the mean and spread of training trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainit.errors import InputError

ROUNDING = 1e-6
"""Spread over the largest value that single precision makes of a constant: it says nothing, and must not be
divided by, for a test trial may be elsewhere."""


@dataclass(frozen=True)
class VoxelScaler:
    """Per-voxel z-scoring.

    Parameters
    ----------
    mean, scale : float32 array of shape (n_voxels,)
        ``scale`` is infinite for a voxel that varies by no more than rounding, which is then always 0.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, betas: np.ndarray) -> VoxelScaler:
        """Fit on training betas of shape (n_trials, n_voxels)."""
        betas = np.asarray(betas, np.float64)
        if betas.ndim != 2 or len(betas) < 2:
            raise InputError(
                f"standardising voxels needs at least 2 training trials, got shape {betas.shape}"
            )
        if not np.isfinite(betas).all():
            bad = int((~np.isfinite(betas)).any(0).sum())
            raise InputError(
                f"{bad} of {betas.shape[1]} voxels hold NaN or infinite betas; leave those voxels out"
            )
        spread = betas.std(0)
        flat = spread <= ROUNDING * np.maximum(np.abs(betas).max(0), 1e-30)
        if flat.all():
            raise InputError(
                f"none of the {betas.shape[1]} voxels varies over the training trials; check the betas"
            )
        return cls(betas.mean(0).astype(np.float32), np.where(flat, np.inf, spread).astype(np.float32))

    def apply(self, betas: np.ndarray) -> np.ndarray:
        """Return z-scores, float32 (n_trials, n_voxels)."""
        betas = np.atleast_2d(np.asarray(betas, np.float32))
        if betas.shape[1] != self.mean.size:
            raise InputError(
                f"betas have {betas.shape[1]} voxels, the decoder was fitted on {self.mean.size}"
            )
        if not np.isfinite(betas).all():
            raise InputError("betas hold NaN or infinite values; leave those voxels out and fit again")
        return (betas - self.mean) / self.scale
