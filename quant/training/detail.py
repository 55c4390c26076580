"""How much of a picture's detail is left, by spatial frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RINGS = 4
"""Of spatial frequencies, from none to the highest."""


def shrinkage(found: Tensor, true: Tensor) -> Tensor:
    """Say how much weaker or stronger than the teacher's a picture is, by spatial frequency: (n,).

    A squared error is least where what cannot be predicted is left out: fine detail fades. Here only the
    share of the teacher's picture counts, in rings of frequencies: ``sum_rings power (slope - 1)^2`` over the
    number of values, slope being that of the regression of `found` on `true` in a ring.

    Parameters
    ----------
    found, true : tensor of shape (n, ..., H, W)
    """
    with torch.autocast(true.device.type, enabled=False):  # bfloat16 has no digits for a faded share
        one, other = (_cosines(x.float()) for x in (found, true))
    height, width = true.shape[-2:]
    y, x = (torch.arange(n, device=true.device) / n for n in (height, width))
    ring = ((y[:, None].square() + x.square()).sqrt() * RINGS).long().clamp(max=RINGS - 1)
    total = torch.zeros(len(true), device=true.device)
    for number in range(RINGS):
        inside = (ring == number).float()
        power = (other.square() * inside).flatten(1).sum(1)
        shared = (one * other * inside).flatten(1).sum(1)
        total = total + (shared - power).square() / power.clamp_min(1e-12)
    return total / true[0].numel()


def _cosines(x: Tensor) -> Tensor:
    """Cosine transform of the last two axes, orthonormal."""
    for axis in (-1, -2):
        n = x.shape[axis]
        place = torch.arange(n, device=x.device)
        waves = torch.cos(math.pi / n * (place + 0.5) * place[:, None]) * math.sqrt(2 / n)
        x = x.transpose(axis, -1) @ torch.cat([waves[:1] * math.sqrt(0.5), waves[1:]]).T
        x = x.transpose(axis, -1)
    return x
