"""What simulated ventral voxels read: a network that neither makes the tokens nor scores pictures."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from brainit.datasets.simulated.ventral import GRID, Maps

NAME = "layers 2 to 5 of ST-LPIPS' AlexNet"
_SIDE = 128  # twice the pictures' side: the network was trained on larger ones


def cortex_maps(device: str = "cpu", side: int = _SIDE) -> Maps:
    """Return the function that gives the stages of pictures (n, h, w, 3) in 0..1, resized to ``side``.

    Raises
    ------
    InputError
        The ``weights`` extra is not installed.
    """
    from lab.metrics.stlpips import load_stlpips

    network = load_stlpips(device)

    @torch.no_grad()
    def stages(images: np.ndarray) -> list[np.ndarray]:
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)).to(device)
        x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        maps = network.layers(x)[1:]
        return [F.adaptive_avg_pool2d(m, GRID).flatten(2).transpose(1, 2).cpu().numpy() for m in maps]

    return stages


def scorer_maps(device: str = "cpu") -> Maps:
    """Return stages of the network that scores pictures: for a bound only, its subjects are favourable.

    Raises
    ------
    InputError
        The ``weights`` extra is not installed.
    """
    from lab.metrics.efficientnet import load_efficientnet

    network = load_efficientnet(device)

    @torch.no_grad()
    def stages(images: np.ndarray) -> list[np.ndarray]:
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)).to(device)
        taps = network.features(x, _SIDE, ("112", "192", "320"))
        maps = [taps[k] for k in ("112", "192", "320")]
        return [F.adaptive_avg_pool2d(m, GRID).flatten(2).transpose(1, 2).cpu().numpy() for m in maps]

    return stages
