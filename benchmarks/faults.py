"""Faults planted on purpose, in pictures and in models, to see whether the meter notices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE = (1, 4, 12, 32)
"""Standard deviations, of 255 levels."""
BLUR = (0.5, 1.0, 2.0)
"""Standard deviations, in pixels."""
WEIGHT_BITS = (8, 6, 4, 3, 2)


def noisy(images: Tensor, level: int, seed: int = 0) -> Tensor:
    """Add Gaussian noise of ``level`` / 255, the same pattern at every level."""
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    return (images + drawn * level / 255).clamp(0, 1)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian, borders repeated."""
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    line = torch.exp(-0.5 * (at / sigma) ** 2)
    line = (line / line.sum()).expand(images.shape[1], 1, -1)
    x = F.pad(images, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, line[:, :, None], groups=images.shape[1])
    return F.conv2d(x, line[..., None], groups=images.shape[1])


def swapped(images: Tensor) -> Tensor:
    """Swap the first and the last colour channel."""
    return images.flip(1)


@torch.no_grad()
def silence_block_(model: nn.Module) -> str:
    """Set the weights and biases of the middle block to zero, in place; return the block's name.

    That is ``mid_block`` of a U-Net, the middle one of a transformer's blocks, else the layer with the most
    weights.
    """
    name = _middle(model)
    for layer in model.get_submodule(name).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
    return name


def _middle(model: nn.Module) -> str:
    children = dict(model.named_children())
    if isinstance(children.get("mid_block"), nn.Module):
        return "mid_block"
    lists = {n: m for n, m in children.items() if isinstance(m, nn.ModuleList) and len(m)}
    if lists:
        longest = max(lists, key=lambda n: sum(p.numel() for p in lists[n].parameters()))
        return f"{longest}.{len(lists[longest]) // 2}"
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    return max(layers, key=lambda n: layers[n].weight.numel())
