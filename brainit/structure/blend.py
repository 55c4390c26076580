"""Blend two predicted pictures by spatial frequency, with weights found on trials neither was fitted to.

A network and ridge err differently: one has learned what edges go with a texture, the other is close to the
best linear guess of slow luminance. Both are taken to an orthonormal cosine basis, where each band of
frequencies gets its own pair of non-negative weights (stacking, Breiman 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dctn, idctn

from brainit.training.stacking import combine, fit_weights

EDGES = (0, 3, 6, 12, 24)
"""Where bands begin, in half cycles a picture."""


@dataclass(frozen=True)
class Blend:
    """Weights of two predictions around the mean picture.

    Parameters
    ----------
    mean : float32 array of shape (H, W) or (H, W, 3)
    weights : dict of str to (float, float)
        Weight of the second and of the first prediction in each band.
    """

    mean: np.ndarray
    weights: dict[str, tuple[float, float]]

    @classmethod
    def fit(cls, truth: np.ndarray, first: np.ndarray, second: np.ndarray, mean: np.ndarray) -> Blend:
        """Fit weights of least squared error.

        Parameters
        ----------
        truth, first, second : arrays of shape (n, H, W) or (n, H, W, 3)
            Pictures shown, and two predictions of each by decoders that had not seen the trial.
        mean : array of shape (H, W) or (H, W, 3)
            Mean training picture.
        """
        groups = _bands(mean.shape)
        parts = [_cosines(p, mean) for p in (truth, first, second)]
        return cls(mean, fit_weights(groups, *parts, residual=False, how="stack"))

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Blend two predictions (n, H, W[, 3]) into one, float32 in 0..1."""
        found = combine(
            _bands(self.mean.shape), self.weights, _cosines(first, self.mean), _cosines(second, self.mean)
        )
        back = idctn(found.numpy().reshape(-1, *self.mean.shape), axes=(1, 2), norm="ortho")
        return np.clip(back + self.mean, 0, 1).astype(np.float32)


def _cosines(pictures: np.ndarray, mean: np.ndarray) -> torch.Tensor:
    centred = np.asarray(pictures, np.float32) - mean.astype(np.float32)
    return torch.from_numpy(dctn(centred, axes=(1, 2), norm="ortho").reshape(len(centred), -1))


def _bands(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    row, column, *_ = np.indices(shape)
    radius = np.hypot(row, column).ravel()
    bands = {
        f"from_{low}": np.flatnonzero((radius >= low) & (radius < high))
        for low, high in zip(EDGES, (*EDGES[1:], np.inf), strict=True)
    }
    return {name: torch.from_numpy(index) for name, index in bands.items() if len(index)}
