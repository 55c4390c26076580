"""What the simulated cortex sees in a picture: maps of simple filters, and high-level features."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

GRID = 24
"""Feature maps are averaged to ``GRID`` x ``GRID`` places."""
_PAD = 16
_SIDE = 64
_WAVES = (4.0, 8.0, 16.0)
ORIENTATIONS = 6
N_LATENT = 64
Features = Callable[[np.ndarray], np.ndarray]


def maps(images: np.ndarray, device: str = "cpu") -> dict[str, np.ndarray]:
    """Filter pictures.

    Parameters
    ----------
    images : float32 array of shape (n, H, W) or (n, H, W, 3)
        In 0..1.
    device : str
        Where torch filters.

    Returns
    -------
    dict of str to float32 array of shape (n, GRID * GRID, n_channels)
        ``luminance`` (1: grey minus one half), ``energy`` (3 scales x 6 orientations of log-Gabor energy),
        ``contrast`` (2: local standard deviation, fine and coarse), ``colour`` (2: red-green, blue-yellow)
        and ``curvature`` (6: energy of two orientations at one place).
    """
    import torch
    from torch.nn.functional import avg_pool2d, pad

    x = _square(images).to(device)
    grey = x.mean(1, keepdim=True)
    with torch.no_grad():
        energy = _energy(pad(grey - 0.5, (_PAD,) * 4, mode="reflect")[:, 0])
        local = []
        for width in (5, 15):
            square = avg_pool2d(pad(grey**2, (width // 2,) * 4, mode="reflect"), width, 1)
            mean = avg_pool2d(pad(grey, (width // 2,) * 4, mode="reflect"), width, 1)
            local.append((square - mean**2).clamp(min=0).sqrt())
        red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
        colour = torch.cat([red - green, blue - (red + green) / 2], 1)
        middle = energy[:, ORIENTATIONS : 2 * ORIENTATIONS]
        curvature = (middle * middle.roll(2, 1)).sqrt()
        found = {
            "luminance": grey - 0.5,
            "energy": energy,
            "contrast": torch.cat(local, 1),
            "colour": colour,
            "curvature": curvature,
        }
        return {
            name: _gridded(v).flatten(2).transpose(1, 2).contiguous().cpu().numpy()
            for name, v in found.items()
        }


def latent(images: np.ndarray, features: Features | None) -> np.ndarray:
    """High-level features of pictures, mixed down to ``N_LATENT`` numbers by a fixed random projection.

    Parameters
    ----------
    images : float32 array of shape (n, H, W) or (n, H, W, 3)
    features : callable, optional
        ``features(images) -> array (n, ...)``; default a fixed bank of random convolutions.

    Returns
    -------
    float32 array of shape (n, N_LATENT)
        Not yet standardised.
    """
    return project((features or random_features)(images))


def project(rows: np.ndarray) -> np.ndarray:
    """Mix features (n, ...) down to ``N_LATENT`` numbers by a fixed random projection, not standardised."""
    rows = np.asarray(rows, np.float32).reshape(len(rows), -1)
    rng = np.random.default_rng(9)
    return rows @ (rng.standard_normal((rows.shape[1], N_LATENT)).astype(np.float32) / np.sqrt(rows.shape[1]))


def random_features(images: np.ndarray) -> np.ndarray:
    """Two layers of fixed random convolutions with rectification, averaged to 4x4 places: (n, 768)."""
    from torch.nn.functional import adaptive_avg_pool2d

    return adaptive_avg_pool2d(_random_layers(images)[1], 4).flatten(1).numpy()


def random_maps(images: np.ndarray, places: int = 8) -> list[np.ndarray]:
    """Return the same two layers as stages of a network: (n, places * places, 24) and (..., 48)."""
    from torch.nn.functional import adaptive_avg_pool2d

    layers = _random_layers(images)
    return [adaptive_avg_pool2d(x, places).flatten(2).transpose(1, 2).numpy() for x in layers]


def _random_layers(images: np.ndarray) -> list[torch.Tensor]:
    import torch
    from torch.nn.functional import conv2d

    draw = torch.Generator().manual_seed(11)
    one = torch.randn(24, 3, 7, 7, generator=draw)
    two = torch.randn(48, 24, 5, 5, generator=draw)
    one -= one.mean((1, 2, 3), keepdim=True)
    two -= two.mean((1, 2, 3), keepdim=True)
    with torch.no_grad():
        hidden = conv2d(_square(images) - 0.5, one / 12, stride=2, padding=3).relu()
        return [hidden, conv2d(hidden, two / 25, stride=2, padding=2).relu()]


def _square(images: np.ndarray) -> torch.Tensor:
    import torch
    from torch.nn.functional import interpolate

    colour = images if images.ndim == 4 else np.repeat(images[..., None], 3, -1)
    x = torch.from_numpy(np.ascontiguousarray(colour.transpose(0, 3, 1, 2), np.float32))
    if x.shape[-2:] != (_SIDE, _SIDE):
        x = interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    return x


def _energy(wide: torch.Tensor) -> torch.Tensor:
    """Log-Gabor energy of padded grey pictures (n, side, side): (n, 18, GRID, GRID)."""
    import torch

    side = wide.shape[-1]
    spectrum = torch.fft.fft2(wide)
    out = []
    for wave in _WAVES:
        # coarse filters need only the low frequencies: half the side, a quarter of the work
        size = side if wave < 8 else side // 2
        low = spectrum
        if size < side:
            keep = torch.cat([torch.arange(size // 2), torch.arange(side - size // 2, side)]).to(wide.device)
            low = spectrum[:, keep][:, :, keep]
        edge = _PAD * size // side
        bank = torch.from_numpy(_bank(size, wave * size / side)).to(wide.device) * (size / side) ** 2
        answers = torch.fft.ifft2(low[:, None] * bank).abs()
        out.append(_gridded(answers[:, :, edge:-edge, edge:-edge]))
    return torch.cat(out, 1)


def _gridded(x: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import interpolate

    return x if x.shape[-1] == GRID else interpolate(x, (GRID, GRID), mode="bilinear", antialias=True)


@lru_cache(maxsize=4)
def _bank(side: int, wave: float) -> np.ndarray:
    """Log-Gabor filters of one wavelength in the Fourier domain, (6, side, side).

    Each keeps one half plane, so the response is even + i odd.
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1
    theta = np.arctan2(fy, fx)
    radial = np.exp(-(np.log(radius * wave) ** 2) / (2 * np.log(1.6) ** 2))
    radial[0, 0] = 0
    out = []
    for k in range(ORIENTATIONS):
        apart = np.angle(np.exp(1j * (theta - np.pi * k / ORIENTATIONS)))
        out.append(2 * radial * np.exp(-(apart**2) / (2 * (np.pi / ORIENTATIONS / 1.5) ** 2)))
    return np.stack(out).astype(np.float32)
