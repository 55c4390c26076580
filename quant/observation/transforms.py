"""Transforms to look through, and the levels of a grid: what before/after pictures are made of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.formats.grids import Grid
from quant.layers.rotations import Rotate, factors_of
from quant.observation.stats import TensorStats, WeightStats


class Labelled:
    """A transform with a name for titles.

    Parameters
    ----------
    transform : callable
        Tensor to tensor; ``to_weight`` is passed on if it has one.
    label : str
        What it does, as in "input after smoothing".
    """

    def __init__(self, transform: nn.Module, label: str) -> None:
        self.transform, self.label = transform, label

    def __call__(self, x: Tensor) -> Tensor:
        """Transform an input."""
        return self.transform.to(x.device)(x)

    def to_weight(self, weight: Tensor) -> Tensor:
        """Transform the weight the other way round."""
        return self.transform.to(weight.device).to_weight(weight)  # type: ignore[operator]


class Smooth(nn.Module):
    """Divide channels by a factor; the weight is multiplied by it."""

    def __init__(self, factor: Tensor, channel_axis: int) -> None:
        super().__init__()
        self.channel_axis = channel_axis
        self.register_buffer("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        """Transform an input."""
        shape = [1] * x.ndim
        shape[self.channel_axis] = -1
        return x / self.factor.to(x).reshape(shape)  # type: ignore[operator]

    def to_weight(self, weight: Tensor) -> Tensor:
        """Counter-transform the weight."""
        return weight * self.factor.to(weight).reshape([1, -1] + [1] * (weight.ndim - 2))  # type: ignore


def smooth(stats: TensorStats, weight: WeightStats, alpha: float = 0.5) -> Labelled:
    """Smoothing by what was seen: ``max|X|^alpha / max|W|^(1 - alpha)`` for each channel."""
    factor, axis = smoothing_factors(stats, weight, alpha), _axis(stats.kind)
    return Labelled(Smooth(factor, axis), "smoothing")


def smoothing_factors(stats: TensorStats, weight: WeightStats, alpha: float = 0.5) -> Tensor:
    """Factors (C,), 1 where a channel is dead on either side.

    Raises
    ------
    InputError
        The input has other channels than the weight (a grouped convolution).
    """
    x = stats.absmax.max(0)
    w = np.maximum(-weight.input["min"], weight.input["max"])
    if len(x) != len(w):
        raise InputError(
            f"{stats.layer!r} has {len(x)} input channels and {len(w)} a group: smoothing is for layers "
            "without groups"
        )
    alive = (x > 0) & (w > 0)
    factor = np.where(alive, np.where(alive, x, 1) ** alpha / np.where(alive, w, 1) ** (1 - alpha), 1)
    return torch.from_numpy(factor.astype(np.float32))


def hadamard(stats: TensorStats, weight: WeightStats | None = None, alpha: float = 0.5) -> Labelled:
    """Rotation of the channels by Hadamard factors, after smoothing if the weight is given.

    Raises
    ------
    InputError
        The number of channels has no such factors.
    """
    if factors_of(stats.channels) is None:
        raise InputError(f"{stats.layer!r} has {stats.channels} channels: no rotation by factors exists")
    factor = None if weight is None else smoothing_factors(stats, weight, alpha)
    rotate = Rotate(stats.channels, _axis(stats.kind), factor, signed=True)  # as LRQ-DiT rotates
    return Labelled(rotate, "rotation" if weight is None else "smoothing and rotation")


def grid_levels(grid: Grid, low: float, high: float, points: int = 20_000) -> np.ndarray:
    """Values a grid can represent when it is fitted to [low, high], ascending.

    A dense ramp (linear and logarithmic) is rounded, so this works for every grid, searched ones too.
    """
    top = max(abs(low), abs(high))
    logs = top * np.exp2(np.linspace(-24, 0, points))
    ramp = np.concatenate([np.linspace(-top, top, points), [low, high, 0.0], logs, -logs])
    x = torch.from_numpy(np.sort(ramp)).double()
    params = grid.fit_range(torch.tensor([float(low)]), torch.tensor([float(high)]), False, torch.float32)
    return np.unique(grid.fake(x, params).numpy())


def _axis(kind: str) -> int:
    return 1 if kind == "Conv2d" else -1
