"""Learned rounding (AdaRound, Nagel et al. 2020): each weight goes up or down, whichever serves the loss.

``w_q = step (floor(w / step) + h(v))`` with the rectified sigmoid ``h = clip(1.2 sigmoid(v) - 0.1, 0, 1)``;
v starts where h is the fraction of w / step, so that training begins at the unrounded weight, and is cut at
0 in the end, where h is one half.
"""

from __future__ import annotations

import torch
from torch import Tensor

HIGH, LOW = 1.1, -0.1
"""Ends of the stretched sigmoid."""
WARM_UP, START, END = 0.2, 20.0, 2.0
"""The pull to 0 and 1 waits for a fifth of the steps; its power then falls from 20 to 2."""


def start(fraction: Tensor) -> Tensor:
    """Variable whose `soft` is `fraction`, from 0 to 1."""
    return -torch.log((HIGH - LOW) / (fraction - LOW) - 1)


def soft(variable: Tensor) -> Tensor:
    """h: the part of a step that is added to the floor."""
    return (torch.sigmoid(variable) * (HIGH - LOW) + LOW).clamp(0, 1)


def hard(variable: Tensor) -> Tensor:
    """0 or 1: what `soft` is cut to after training."""
    return (variable >= 0).to(variable.dtype)


def undecided(h: Tensor, progress: float) -> Tensor | float:
    """Mean of ``1 - |2h - 1|^power``: 0 where all roundings are 0 or 1.

    `progress` runs from 0 to 1. At a power of 20 only roundings near 0 or 1 feel it, at 2 all do.
    """
    if progress < WARM_UP:
        return 0.0
    power = START + (END - START) * (progress - WARM_UP) / (1 - WARM_UP)
    return (1 - (2 * h - 1).abs() ** power).mean()
