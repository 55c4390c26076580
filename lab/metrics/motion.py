"""How much, and how, clips move: scores of pairs of clips (quality of video, beside that of single frames).

Everything takes clips of shape (n, frames, C, H, W) in 0..1; float64 inside.
"""

from __future__ import annotations

import torch
from torch import Tensor


def change(clips: Tensor) -> Tensor:
    """Change from each frame to the next: (n, frames - 1, C, H, W)."""
    return clips[:, 1:].double() - clips[:, :-1].double()


def energy(clips: Tensor) -> Tensor:
    """Mean squared change of each clip: (n,); 0 for a still one."""
    return change(clips).square().flatten(1).mean(1)


def change_error(clips: Tensor, truth: Tensor) -> Tensor:
    """Temporal-difference error: mean squared difference of the changes, over the truth's energy: (n,).

    0 for the same movement, 1 for a frozen clip, 2 for another movement of the same energy.
    """
    gap = (change(clips) - change(truth)).square().flatten(1).mean(1)
    return gap / energy(truth).clamp(min=1e-12)


def energy_ratio(clips: Tensor, truth: Tensor) -> Tensor:
    """Motion energy over the truth's: (n,); below 1 a clip freezes, above it flickers; 1: both are still."""
    ours, theirs = energy(clips), energy(truth)
    return torch.where((ours == 0) & (theirs == 0), 1.0, ours / theirs.clamp(min=1e-12))


def agreement(clips: Tensor, truth: Tensor) -> Tensor:
    """Cosine of the two clips' changes: (n,); 1 is the same movement, 0 an unrelated one."""
    a, b = change(clips).flatten(1), change(truth).flatten(1)
    product = (a * b).sum(1)
    return product / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)


def still(clips: Tensor) -> Tensor:
    """Return clips whose first frame stays: the baseline that does not move."""
    return clips[:, :1].expand_as(clips).contiguous()
