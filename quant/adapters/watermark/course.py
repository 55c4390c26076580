"""The course of a training: its rate, the mean of its parameters, and checkpoints that it goes on from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.registry import Context
from quant.training.optimize import Group, Optimizer, Rules
from quant.training.running.cost import Meter

LOOK = 25
"""Steps between two rows of the trace."""
SAY = 2.0
"""Seconds after which a step is reported even so: some steps take long."""
EVERY = 20.0
"""Seconds between two checkpoints: what a stop costs at most."""


@dataclass(frozen=True)
class Pace:
    """How fast, and how long.

    Attributes
    ----------
    steps : int
        At most.
    rate : float
        Peak learning rate; it falls along a cosine to a fiftieth.
    warm_up : int
        Steps over which it rises.
    decay : float
        Decoupled weight decay.
    memory : float
        Most that the mean of the parameters keeps of itself in a step.
    minutes : float, optional
        Time budget over all starts; the rate then falls with the share of time used if that is ahead.
    """

    steps: int
    rate: float
    warm_up: int
    decay: float
    memory: float
    minutes: float | None = None

    def share(self, step: int, seconds: float) -> float:
        """Return the share of steps or of time that is used, whichever is more."""
        return max(step / self.steps, seconds / (60 * self.minutes) if self.minutes else 0.0)

    def rate_at(self, step: int, share: float) -> float:
        """Return the learning rate of a step."""
        rising = min(1.0, (step + 1) / self.warm_up)
        return self.rate * rising * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * share)))


@dataclass
class Trained:
    """What a training came to, over all its starts."""

    steps: int
    seconds: float
    trace: list[dict[str, float]] = field(default_factory=list)


class Course:
    """Where a training stands; begins where the state's checkpoint ends, if there is one.

    Parameters
    ----------
    key : str
        Name of the checkpoint in ``context.state``.
    module : torch.nn.Module
        All its parameters are trained; its buffers are kept as well.
    values : dict
        What else the steps go by, JSON types; `values` of a checkpoint take its place.
    """

    def __init__(
        self, key: str, module: nn.Module, pace: Pace, context: Context, values: dict[str, Any]
    ) -> None:
        self.key, self.module, self.pace, self.context, self.values = key, module, pace, context, values
        self.device = next(module.parameters()).device
        group = Group(dict(module.named_parameters()), pace.rate, pace.decay)
        self.optimizer = Optimizer([group], Rules(clip=1.0, betas=(0.9, 0.99)), pace.steps)
        self.means = {name: p.detach().clone() for name, p in self.optimizer.parameters.items()}
        self.step, self.cost, self.trace = 0, Meter(), list[dict[str, float]]()
        self._loss: Tensor | None = None
        self._resume()
        self._saved, self._said = time.monotonic(), -math.inf

    def shares(self) -> Iterator[float]:
        """Yield before each step what share is used; at the end the parameters become their mean."""
        with self.cost.running(str(self.device)):
            while (share := self._share()) < 1:
                for group in self.optimizer.torch.param_groups:
                    group["lr"] = self.pace.rate_at(self.step, share)
                yield share
                self.step += 1
                if time.monotonic() - self._saved >= EVERY:
                    self._save()
            self._save()
        with torch.no_grad():
            for name, parameter in self.optimizer.parameters.items():
                parameter.copy_(self.means[name])

    def update(self, loss: Tensor) -> None:
        """Move the parameters by a loss, and their mean after them."""
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        means, now = list(self.means.values()), [p.detach() for p in self.optimizer.parameters.values()]
        torch._foreach_lerp_(means, now, 1 - min(self.pace.memory, (self.step + 1) / (self.step + 10)))
        self._loss = loss.detach()

    def report(self, **row: float) -> None:
        """Note how a step went, every `LOOK` of them, and say it, at least every few seconds.

        Raises
        ------
        InputError
            The loss is not finite.
        """
        noted = self.step % LOOK == 0
        if not noted and time.monotonic() - self._said < SAY:
            return
        self._said = time.monotonic()
        row = {"loss": self._finite(), **row}
        if noted:
            self.trace.append({"step": self.step, **row})
        said = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
        steps = self.pace.steps  # where time is short, the share of it counts as if it were steps
        done = min(steps, round(self._share() * steps))
        self.context.progress(done, steps, f"{self.key} {said}")

    def trained(self) -> Trained:
        """Return what it came to."""
        return Trained(self.step, self.cost.seconds, self.trace)

    def _share(self) -> float:
        return self.pace.share(self.step, self.cost.elapsed())

    def _finite(self) -> float:
        assert self._loss is not None
        value = float(self._loss)
        if not math.isfinite(value):
            raise InputError(
                f"{self.key}: the loss became {value} near step {self.step}: train with a lower rate"
            )
        return value

    def _check(self) -> None:
        """Refuse a loss or weights that are no numbers, which the last steps may have made unseen."""
        if self._loss is not None:
            self._finite()
        if not all(bool(torch.isfinite(mean).all()) for mean in self.means.values()):
            raise InputError(
                f"{self.key}: the weights are not finite after {self.step} steps: train with a lower rate"
            )

    def _save(self) -> None:
        self._saved = time.monotonic()
        self._check()  # what is on disk can be gone on from
        if self.context.state is None:
            return
        tensors, optimizer = self.optimizer.save()
        tensors |= {f"buffer.{name}": buffer for name, buffer in self.module.named_buffers()}
        tensors |= {f"mean.{name}": mean for name, mean in self.means.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        self.context.state.put(
            self.key, tensors,
            {
                "step": self.step, "optimizer": optimizer, "values": self.values, "trace": self.trace,
                "cost": self.cost.values(),
            },
        )  # fmt: skip

    @torch.no_grad()
    def _resume(self) -> None:
        saved = None if self.context.state is None else self.context.state.get(self.key)
        if saved is None:
            return
        self.optimizer.load(saved.tensors, saved.values["optimizer"])
        for name, buffer in self.module.named_buffers():
            buffer.copy_(saved.tensors[f"buffer.{name}"])
        for name, mean in self.means.items():
            mean.copy_(saved.tensors[f"mean.{name}"])
        torch.set_rng_state(saved.tensors["random.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved.tensors["random.cuda"], self.device)
        self.step, self.values = int(saved.values["step"]), dict(saved.values["values"])
        self.trace, self.cost = list(saved.values["trace"]), Meter(**saved.values["cost"])
