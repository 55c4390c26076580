"""What a voxel is taken to respond to: blurred luminance, or oriented contrast energy, compressed.

Energy maps follow the standard model of early visual cortex: a quadrature pair of Gabor filters at four
orientations, ``e = |g * image|``, a compressive power ``e^p`` (p < 1; Kay, Winawer, Mezer & Wandell, 2013),
then Gaussian pooling over the receptive field and subsampling by 2. Which map fits a subject is left to
leave-one-out scores (:mod:`brainit.structure.select`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from brainit.errors import InputError
from brainit.metrics.pixels import grey

MAX_SIDE = 32  # filters are applied at this size at most: V1 voxels of a small set see no finer detail
_BANDWIDTH = 0.375  # Gaussian envelope's sigma in periods of the carrier
_BLOCK = 2000


@dataclass(frozen=True)
class FeatureMap:
    """A fixed map from pictures to numbers that voxels are linear in.

    Parameters
    ----------
    name : str
    frequency : float
        Carrier of the Gabor filters in cycles per pixel of the resized picture; 0 for plain luminance.
    power : float
        Compressive exponent on the energy.
    pool : float
        Sigma of the pooling (or of the blur, for luminance) in pixels.
    orientations : int
    """

    name: str
    frequency: float = 0.0
    power: float = 1.0
    pool: float = 1.5
    orientations: int = 4

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 features of shape (n, n_features) of pictures (n, H, W) or (n, H, W, 3) in 0..1."""
        pictures = check_pictures(pictures)
        side = min(pictures.shape[1], MAX_SIDE)
        blocks = [
            self._block(resize(luminance(pictures[i : i + _BLOCK]), side))
            for i in range(0, len(pictures), _BLOCK)
        ]
        return np.concatenate(blocks)

    def _block(self, grey: np.ndarray) -> np.ndarray:
        if self.frequency == 0:
            maps = [gaussian_filter(grey, (0, self.pool, self.pool))]
        else:
            maps = [gaussian_filter(e**self.power, (0, self.pool, self.pool)) for e in self._energies(grey)]
        return np.concatenate([m[:, ::2, ::2].reshape(len(grey), -1) for m in maps], 1).astype(np.float32)

    def _energies(self, grey: np.ndarray) -> list[np.ndarray]:
        spectrum = np.fft.fft2(grey)
        freq = np.fft.fftfreq(grey.shape[-1])
        fy, fx = np.meshgrid(freq, freq, indexing="ij")
        sigma = _BANDWIDTH / self.frequency
        maps = []
        for k in range(self.orientations):
            angle = np.pi * k / self.orientations
            off = (fx - self.frequency * np.cos(angle)) ** 2 + (fy - self.frequency * np.sin(angle)) ** 2
            maps.append(np.abs(np.fft.ifft2(spectrum * np.exp(-2 * (np.pi * sigma) ** 2 * off))))
        return maps


CANDIDATES = (
    FeatureMap("luminance"),
    FeatureMap("energy", frequency=0.3),
    FeatureMap("energy^0.5", frequency=0.3, power=0.5),
    FeatureMap("energy^0.3", frequency=0.3, power=0.3),
)


def check_pictures(pictures: np.ndarray, what: str = "pictures") -> np.ndarray:
    """Return float32 pictures after checking that they are square, finite and in 0..1.

    Raises
    ------
    InputError
        Otherwise.
    """
    pictures = np.asarray(pictures, np.float32)
    square = pictures.ndim in (3, 4) and pictures.shape[1] == pictures.shape[2] and pictures[:1].size > 0
    if not square or (pictures.ndim == 4 and pictures.shape[3] != 3):
        raise InputError(
            f"{what} have shape {pictures.shape}; expected square (n, S, S) or (n, S, S, 3), n >= 1"
        )
    low, high = float(pictures.min()), float(pictures.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails both
        raise InputError(
            f"{what} range over {low:.4g}..{high:.4g}; expected 0..1 without NaN: scale them first"
        )
    return np.clip(pictures, 0, 1)


def luminance(pictures: np.ndarray) -> np.ndarray:
    """Return (n, S, S) float32: grey pictures unchanged, colour ones as luminance."""
    return pictures if pictures.ndim == 3 else grey(pictures).astype(np.float32)


def resize(pictures: np.ndarray, side: int) -> np.ndarray:
    """Resize (n, S, S) or (n, S, S, 3) pictures to ``side`` pixels, antialiased bilinear, float32."""
    if pictures.shape[1] == side:
        return pictures
    x = torch.from_numpy(np.ascontiguousarray(pictures, np.float32))
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    y = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return (y[:, 0] if pictures.ndim == 3 else y.permute(0, 2, 3, 1)).contiguous().numpy()
