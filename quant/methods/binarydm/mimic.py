"""Low-rank representation mimicking: features match the teacher's in their main directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant.recordings.trajectories import Batch
from quant.training.blocks import BLOCK
from quant.training.student import Student


def block_names(model: nn.Module) -> list[str]:
    """Residual and transformer blocks that lie in no other one."""
    names = [name for name, module in model.named_modules() if BLOCK.fullmatch(type(module).__name__)]
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def rows_of(feature: Tensor) -> Tensor:
    """(n, C, H, W), (n, C, F, H, W) or (n, T, C) as (rows, C): the channels are what directions are of."""
    if feature.ndim > 3:
        feature = feature.movedim(1, -1)
    return feature.reshape(-1, feature.shape[-1]).float()


def main_directions(feature: Tensor, directions: int) -> Tensor:
    """Eigenvectors of the covariance with the largest eigenvalues: (C, round(C / directions))."""
    rows = rows_of(feature)
    covariance = rows.T @ rows / len(rows) ** 2
    # ascending: the last columns are the main ones
    _, vectors = torch.linalg.eigh(covariance.double())
    keep = max(1, round(rows.shape[1] / directions))
    return vectors[:, -keep:].flip(-1).to(feature.device, torch.float32)


def mimic_loss(student: Tensor, teacher: Tensor, directions: Tensor) -> Tensor:
    """Mean squared difference along the directions, relative to the teacher's power along them."""
    wanted = rows_of(teacher) @ directions
    found = rows_of(student) @ directions
    return (found - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)


class Mimic:
    """Directions of every block, from the first batch, and the loss along them.

    Parameters
    ----------
    student : Student
        Installed.
    directions : int
        One direction for so many channels.
    """

    def __init__(self, student: Student, directions: int) -> None:
        self.student = student
        self.blocks = {name: student.model.get_submodule(name) for name in block_names(student.model)}
        with torch.no_grad(), features(self.blocks) as seen:
            # fixed points, not a draw: a training that goes on finds the same directions
            student.target(student.source.spread(student.config.train_rows)[0])
            self.directions = {name: main_directions(x, directions) for name, x in seen.items()}

    def loss(self, batch: Batch, weight: float) -> Tensor:
        """Output error plus `weight` times the mean over the blocks, and over the streams of a block."""
        with features(self.blocks) as seen:
            target = self.student.target(batch)
            wanted = dict(seen)
            output = self.student.predict(batch)
            parts = [mimic_loss(seen[n], wanted[n], self.directions[n]) for n in self.directions if n in seen]
        total = self.student.distance(output, target)
        return total + weight * torch.stack(parts).mean() if parts else total


@contextmanager
def features(blocks: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keep the last output of some blocks, all streams of it: models differ in which is the picture's."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            for index, part in enumerate(out if isinstance(out, (tuple, list)) else (out,)):
                if isinstance(part, Tensor):
                    seen[f"{name}.{index}"] = part

        return hook

    handles = [block.register_forward_hook(keep(name)) for name, block in blocks.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
