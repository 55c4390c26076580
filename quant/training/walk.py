"""Training along the way: from states that the student itself comes to, by where several steps lead.

A squared error at the teacher's states says nothing of what a sampler makes of it: errors that agree from
step to step add up, and the student is asked at states that the teacher never sees. Here each row of a batch
is a sample on its way. Teacher and student go a few steps from where the student has come to, and the loss
is how far apart they end; then the sample moves on by the student's first step. A sample that has come to
the end begins anew, with the noise of one recorded sample and the condition of another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.recordings.trajectories import Batch
from quant.training.source import Source

Block = Callable[[], AbstractContextManager[None]]
FITTED = 4
"""Samples that the sampler's steps are read from."""
EXACT = 1e-2
"""Largest error of the steps read, relative to the way of a step."""


@dataclass
class Ladder:
    """Steps of a sampler, ``x_next = a x + b prediction``, as a recording has them.

    Attributes
    ----------
    times : tensor of shape (T,)
    a, b : tensor of shape (T,)
    """

    times: Tensor
    a: Tensor
    b: Tensor

    def step(self, x: Tensor, prediction: Tensor, index: Tensor) -> Tensor:
        """Go one step, each row its own."""
        shape = [-1, *[1] * (x.ndim - 1)]
        return self.a[index].view(shape) * x + self.b[index].view(shape) * prediction


@dataclass
class Rows:
    """Samples on their way.

    Attributes
    ----------
    x : tensor of shape (n, ...)
    index : int64 tensor of shape (n,)
        Steps that are behind each.
    condition : tensor of shape (n, ...) or None
    """

    x: Tensor
    index: Tensor
    condition: Tensor | None


@torch.no_grad()
def read_ladder(source: Source, model: nn.Module, device: str) -> Ladder:
    """Find a sampler's steps from recorded states and the teacher's predictions there.

    Parameters
    ----------
    source : Source
    model : torch.nn.Module
        The teacher.
    device : str

    Raises
    ------
    InputError
        A step is not a fixed sum of state and prediction: the sampler draws noise or remembers.
    """
    recording, count = source.recording, source.n_timesteps
    keys = source.train[:FITTED]
    samples = [recording.sample(key) for key in keys]
    a, b = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for step in range(count):
        batch = recording.read([(key, step) for key in keys])
        said = source.predict(model, batch).double().cpu().flatten()
        now = batch.x.double().flatten()
        later = torch.stack([s["x"][step + 1] if step + 1 < count else s["final"] for s in samples])
        then = later.double().flatten()
        found = torch.linalg.lstsq(torch.stack([now, said], 1), then[:, None]).solution[:, 0]
        gap = (then - found[0] * now - found[1] * said).norm() / (then - now).norm()
        if not gap < EXACT:
            raise InputError(
                f"step {step} of the recording at {recording.path} is not a fixed sum of state and "
                f"prediction (error {float(gap):.2g} of the step): unroll needs a sampler without noise or "
                "memory; use unroll=0"
            )
        a[step], b[step] = found
    times = torch.tensor(recording.timesteps, dtype=torch.float32)
    return Ladder(times.to(device), a.float().to(device), b.float().to(device))


class Walk:
    """Batches and losses along the way of a student.

    Parameters
    ----------
    source : Source
        With held-out samples.
    model : torch.nn.Module
        Teacher and student in one.
    teaching : callable
        A block in which it is the teacher.
    holding : callable
        A block in which the student's weights do not change.
    steps : int
        That a loss goes over; at most the sampler's.
    every : int
        All samples are set anew after so many training steps: a training that goes on finds them again.
    device : str

    Raises
    ------
    InputError
        More steps than the sampler has; see also `read_ladder`.
    """

    def __init__(
        self, source: Source, model: nn.Module, teaching: Block, holding: Block, steps: int, every: int,
        device: str,
    ) -> None:  # fmt: skip
        if steps > source.n_timesteps:
            raise InputError(
                f"unroll {steps}: the recording has {source.n_timesteps} steps; give at most so many"
            )
        self.source, self.model, self.teaching, self.holding = source, model, teaching, holding
        self.steps, self.every, self.device = steps, every, device
        with teaching():
            self.ladder = read_ladder(source, model, device)
        self.rows: Rows | None = None
        self.behind: list[int] = []
        self.moved: Tensor | None = None

    def draw(self, step: int, generator: torch.Generator) -> Rows:
        """Take samples where they are now; those at the end begin anew."""
        last = self.source.n_timesteps - self.steps
        if self.rows is None or step % self.every == 0:
            self.rows = self._anew(last, generator)
            self.behind = self.rows.index.tolist()
            if self.moved is None:
                self.moved = self.rows.x.clone()
            self.moved.copy_(self.rows.x)  # one tensor for good: a CUDA graph writes to it
            return self.rows
        assert self.moved is not None
        x, condition = self.moved.clone(), self.rows.condition
        self.behind = [index + 1 for index in self.behind]
        for row, index in enumerate(self.behind):
            if index > last:
                noise, other = self._keys(2, generator)
                self.behind[row] = 0
                x[row] = self.source.recording.sample(noise)["x"][0].to(x)
                if condition is not None:
                    condition[row] = self.source.recording.sample(other)["condition"].to(condition)
        self.rows = Rows(x, torch.tensor(self.behind).to(self.device), condition)
        return self.rows

    def loss(self, rows: Rows, step: int = 0) -> Tensor:
        """Compare where teacher and student end, squared, a step's length being one; moves the samples."""
        with torch.no_grad(), self.teaching():
            wanted = self.go(rows)
        with self.holding():
            way = self.go(rows)
        assert self.moved is not None
        self.moved.copy_(way[0].detach())
        index = rows.index[:, None] + torch.arange(self.steps, device=rows.index.device)
        length = self.ladder.b[index].square().sum(1)
        return ((way[-1] - wanted[-1]).square().flatten(1).mean(1) / length).mean()

    def go(self, rows: Rows, steps: int | None = None) -> list[Tensor]:
        """List the states after each of the next steps, by what the model is now."""
        x, found = rows.x, []
        for k in range(steps or self.steps):
            index = rows.index + k
            batch = Batch(x, self.ladder.times[index], rows.condition, rows.index)
            x = self.ladder.step(x, self.source.predict(self.model, batch).float(), index)
            found.append(x)
        return found

    def held_out(self) -> float:
        """Squared error of final states from the noise of held-out samples, relative to their power."""
        error = power = 0.0
        for start in range(0, len(self.source.held), self.source.rows):
            samples = [self.source.recording.sample(k) for k in self.source.held[start:][: self.source.rows]]
            with self.holding():
                found = self.go(self._rows(samples, [0] * len(samples)), self.source.n_timesteps)[-1]
            final = torch.stack([s["final"] for s in samples]).to(found)
            error += float((found - final).square().sum())
            power += float(final.square().sum())
        return error / max(power, 1e-30)

    def _anew(self, last: int, generator: torch.Generator) -> Rows:
        keys = self._keys(self.source.rows, generator)
        behind = torch.randint(last + 1, (len(keys),), generator=generator).tolist()
        return self._rows([self.source.recording.sample(key) for key in keys], behind)

    def _rows(self, samples: list[dict[str, Tensor]], behind: list[int]) -> Rows:
        x = torch.stack([s["x"][k] for s, k in zip(samples, behind, strict=True)]).to(self.device)
        conditions = [s["condition"] for s in samples if "condition" in s]
        condition = torch.stack(conditions).to(self.device) if conditions else None
        return Rows(x, torch.tensor(behind).to(self.device), condition)

    def _keys(self, count: int, generator: torch.Generator) -> list[int]:
        pick = torch.randint(len(self.source.train), (count,), generator=generator).tolist()
        return [self.source.train[i] for i in pick]
