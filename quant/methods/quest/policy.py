"""Which layers are tuned: by what they see and by what they cost, never by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from quant.recordings.trajectories import Batch
from quant.training.student import Student


@dataclass(frozen=True)
class Tuned:
    """What measurement chose.

    Attributes
    ----------
    time : list of str
        Layers whose input depends on the timestep and not on the image.
    sensitive : list of str
        Of the others the fewest that have the wanted share of the error together.
    shares : dict of str to float
        Share of the output error of every layer that is not in `time`, each quantized alone.
    """

    time: list[str]
    sensitive: list[str]
    shares: dict[str, float]


@torch.no_grad()
def measure(student: Student, sensitive: float, rows: int) -> Tuned:
    """Find the layers to tune.

    Parameters
    ----------
    student : Student
        Installed.
    sensitive : float
        Wanted share of the error, from 0 to 1.
    rows : int
        Inputs to measure on.
    """
    time = time_layers(student)
    shares = error_shares(student, [name for name in student.layers if name not in time], rows)
    chosen: list[str] = []
    total = 0.0
    for name in sorted(shares, key=lambda name: -shares[name]):
        if total >= sensitive - 1e-9:
            break
        chosen.append(name)
        total += shares[name]
    order = list(student.layers)
    return Tuned(time, sorted(chosen, key=order.index), shares)


def time_layers(student: Student) -> list[str]:
    """Layers that read the same for two images at one timestep, and something else at another."""
    source = student.source
    keys = (source.train * 2)[:2]
    first = source.recording.read([(key, 0) for key in keys])
    images = first.x if keys[0] != keys[1] else torch.stack([first.x[0], first.x[0].flip(-1)])
    condition = None if first.condition is None else first.condition[:1].expand_as(first.condition)
    first = replace(first, x=images, condition=condition)
    earliest, latest = source.recording.timesteps[0], source.recording.timesteps[-1]
    # a sampler of one step has no other timestep: half of it is one that the model knows
    other_time = latest if latest != earliest else earliest / 2
    later = replace(first, timestep=torch.full_like(first.timestep, other_time))
    one, other = _inputs(student, first), _inputs(student, later)
    found = []
    for name in student.layers:
        if name not in one or one[name].shape != other[name].shape:
            continue
        # guidance runs both images under the condition, then both without: neighbours differ in the image
        pairs = one[name].flatten(1).unflatten(0, (-1, 2)) if len(one[name]) % 2 == 0 else one[name][:, None]
        same = torch.allclose(pairs[:, 0], pairs[:, -1], rtol=1e-4, atol=1e-5)
        if same and not torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5):
            found.append(name)
    return found


def _inputs(student: Student, batch: Batch) -> dict[str, Tensor]:
    """First input of each layer in the full-precision model."""
    seen: dict[str, Tensor] = {}

    def look(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.setdefault(name, (args[0] if args else kwargs["input"]).clone())

        return hook

    layers = student.layers.items()
    handles = [layer.register_forward_pre_hook(look(name), with_kwargs=True) for name, layer in layers]
    try:
        student.target(batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def error_shares(student: Student, names: list[str], rows: int) -> dict[str, float]:
    """Share of the output's squared error that each layer has, quantized alone."""
    batches = student.source.spread(rows)
    targets = [student.target(batch) for batch in batches]
    errors: dict[str, float] = {}
    try:
        for layer in student.layers.values():
            layer.active = False
        for name in names:
            student.layers[name].active = True
            errors[name] = sum(
                float((student.predict(batch) - target).square().sum())
                for batch, target in zip(batches, targets, strict=True)
            )
            student.layers[name].active = False
    finally:
        for layer in student.layers.values():
            layer.active = True
    total = sum(errors.values()) or 1.0
    return {name: error / total for name, error in errors.items()}
