"""Inputs to train on: the full-precision model's recorded trajectories, some of them held out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant.denoisers.families import call
from quant.errors import MissingDataError
from quant.recordings.rows import calibration_keys, null_of
from quant.recordings.trajectories import Batch, Trajectories
from quant.training.running.processes import Processes

Pair = tuple[int, int]
HELD_SHARE = 5
"""One sample in so many is held out."""
PATH = 8
"""Points of a trajectory in one draw, where errors along it count."""


class Source:
    """Points (sample, timestep) of the recording's `distill` keys.

    Parameters
    ----------
    recording : quant.Trajectories
    rows : int
        Points a draw, of all processes together.
    combined : bool
        With guidance, predictions are the guided ones; else those of both halves, one after the other.
    hold : bool
        Keep a fifth of the samples out of training.

    Raises
    ------
    MissingDataError
        The recording is too short to train on.
    """

    def __init__(self, recording: Trajectories, rows: int, combined: bool = True, hold: bool = True) -> None:
        keys = calibration_keys(recording, subset="distill")
        if hold and len(keys) < 2:
            raise MissingDataError(
                f"the recording at {recording.path} has {len(keys)} sample to train on, and one must be held "
                "out: record more with quant.record, or set held_out_rows to 0"
            )
        count = max(1, len(keys) // HELD_SHARE) if hold else 0
        self.recording, self.rows, self.combined = recording, rows, combined
        self.train, self.held = keys[: len(keys) - count], keys[len(keys) - count :]
        self.null, self.guidance = null_of(recording), float(recording.settings["guidance"])
        self.processes = Processes.here()
        self._nulls: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def n_timesteps(self) -> int:
        """Steps of the recording."""
        return len(self.recording.timesteps)

    def draw(self, generator: torch.Generator) -> Batch:
        """Draw points evenly over samples and timesteps; each process its share of them."""
        total = len(self.train) * self.n_timesteps
        index = torch.randint(total, (self.rows,), generator=generator, device=generator.device).tolist()
        mine = index[self.processes.index :: self.processes.count]
        pairs = [(self.train[i // self.n_timesteps], i % self.n_timesteps) for i in mine]
        return self.recording.read(pairs)

    def draw_paths(self, generator: torch.Generator) -> tuple[Batch, int]:
        """Draw evenly spaced points of a few trajectories: the batch, and how many each has."""
        length = min(PATH, self.rows, self.n_timesteps)
        count = max(1, self.rows // length)
        pick = torch.randint(len(self.train), (count,), generator=generator, device=generator.device).tolist()
        stride = self.n_timesteps // length
        first = int(torch.randint(self.n_timesteps - stride * (length - 1), (1,), generator=generator))
        mine = pick[self.processes.index :: self.processes.count] or pick[:1]
        pairs = [(self.train[i], first + stride * k) for i in mine for k in range(length)]
        return self.recording.read(pairs), length

    def spread(self, count: int, held: bool = False) -> list[Batch]:
        """Take fixed points, spread over timesteps and samples, in batches of a draw's size."""
        pairs = _spread(self.held if held else self.train, self.n_timesteps, count)
        size = self.rows
        return [self.recording.read(pairs[i : i + size]) for i in range(0, len(pairs), size)]

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Run a model on a batch: its prediction, the guided one, or both halves'."""
        x, time, condition = batch.x, batch.timestep, batch.condition
        if self.null is None or condition is None:
            return call(model, x, time, condition)
        place = condition.device, condition.dtype
        if place not in self._nulls:  # once: a GPU would wait for it at every forward
            self._nulls[place] = self.null.to(condition)
        nothing = self._nulls[place].expand_as(condition)
        both = call(
            model, torch.cat([x, x]), torch.cat([time, time]), torch.cat([condition, nothing])
        )  # fmt: skip
        if not self.combined:
            return both
        given, base = both.chunk(2)
        return base + self.guidance * (given - base)


def _spread(keys: Sequence[int], steps: int, count: int) -> list[Pair]:
    """Up to `count` different points: every timestep before any comes again, samples in turn."""
    total = min(count, len(keys) * steps)
    # rounds after which a timestep would meet the same samples again: one sample further then
    period = len(keys) // math.gcd(len(keys), steps + 1)
    found: list[Pair] = []
    for i in range(total):
        # of fewer points than timesteps, evenly spread ones
        step = i % steps if total >= steps else round(i * (steps - 1) / max(1, total - 1))
        around = i // steps
        found.append((keys[(i + around + around // period) % len(keys)], step))
    return found
