"""The one distillation loop: every method that trains is a task for it.

A task says what is trained by which rules, draws a batch and gives its loss against the full-precision
teacher. The loop does the rest: devices and mixed precision, progress with an estimate, checkpoints from
which it goes on to the same bytes, the best of what held-out trajectories say, a stop at the first loss that
is not a number, and what it all cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.registry import Context
from quant.training.optimize import Group, Optimizer, Rules
from quant.training.running.cost import Meter
from quant.training.running.graph import Graphed, Table
from quant.training.running.processes import Processes

FLOAT16 = 2.0**16
"""What a loss is multiplied by at first where gradients go through float16."""
_LESS = 2.0**-4
"""What the factor is multiplied by after a step in which gradients were too large for float16."""


@dataclass
class Task:
    """What is trained.

    Attributes
    ----------
    key : str
        Name of its checkpoint, unique in one run of a method.
    groups : list of Group
    draw : callable
        ``draw(step)``: a batch. Anything random comes from `generator`.
    loss : callable
        ``loss(batch, step)``: a scalar with gradients, or that and a penalty which is trained on but not
        recorded.
    steps : int
    rules : Rules
    generator : torch.Generator, optional
        Saved and restored with the checkpoint.
    held_out : callable, optional
        Loss on trajectories that are not trained on; None at a step whose parameters cannot be kept.
    every : int
        Steps between two looks at what is held out, and between two checkpoints.
    prepare : callable, optional
        ``prepare(step)`` before each step: what the loss reads beside the batch.
    stepped : callable, optional
        ``stepped(step, optimizer)`` after each step: phases that change what is trained.
    fixed : callable, optional
        ``fixed(step)``: names what `loss` reads beside the batch and tensors that change in place; steps of
        one name may come from one CUDA graph. None, or no such function: the step is run plainly.
    table : Table, optional
        Parameters of which a batch reads some rows.
    precision : {"float32", "bfloat16"}
        Of the forwards; parameters and moments are float32 always.
    factor : float
        On the loss before its gradients and off them afterwards, a power of two: see `factor_for`. Where
        gradients overflow the step has none, and the factor falls, down to 1.
    """

    key: str
    groups: list[Group]
    draw: Callable[[int], Any]
    loss: Callable[[Any, int], Tensor | tuple[Tensor, Tensor | float]]
    steps: int
    rules: Rules = field(default_factory=Rules)
    generator: torch.Generator | None = None
    held_out: Callable[[], float | None] | None = None
    every: int = 100
    prepare: Callable[[int], None] | None = None
    stepped: Callable[[int, Optimizer], None] | None = None
    fixed: Callable[[int], Hashable] | None = None
    table: Table | None = None
    precision: str = "float32"
    factor: float = 1.0


def factor_for(model: nn.Module) -> float:
    """Factor on the loss that keeps gradients of a float16 model from becoming nothing; 1 for others.

    A mean over a million numbers has gradients of 1e-8 where it begins, and float16 ends at 6e-8.
    """
    return FLOAT16 if any(p.dtype == torch.float16 for p in model.parameters()) else 1.0


@dataclass
class Result:
    """What came of a task."""

    losses: list[float]
    held_out: dict[int, float]
    """By the number of steps before it."""
    best: int | None
    """Steps of the parameters that were kept; None: the last ones."""
    norms: list[float]
    """Of all gradients together, by step, if they were asked for."""
    cost: Meter
    graphs: tuple[int, str] = (0, "")
    """Steps from CUDA graphs, and why there were none from some step on."""

    def notes(self) -> dict[str, Any]:
        """First and last tenth of the losses, and the best held-out one, for a ledger."""
        tenth = max(1, len(self.losses) // 10)
        out: dict[str, Any] = {"steps": len(self.losses)}
        if self.losses:
            out["loss_first"] = round(sum(self.losses[:tenth]) / tenth, 8)
            out["loss_last"] = round(sum(self.losses[-tenth:]) / tenth, 8)
        if self.held_out:
            out["held_out_first"] = round(self.held_out[min(self.held_out)], 8)
            out["held_out"] = round(self.held_out[max(self.held_out)], 8)
        if len(self.held_out) > 2:
            out["held_out_by_step"] = {str(step): round(loss, 8) for step, loss in self.held_out.items()}
        replayed, refused = self.graphs
        if replayed or refused:
            out["graphed_steps"] = replayed
        if refused:
            out["no_graph"] = refused
        if self.best is not None:
            out["best_step"] = self.best
            out["held_out"] = round(self.held_out[self.best], 8)
        return out


def distill(task: Task, context: Context) -> Result:
    """Train.

    Parameters
    ----------
    task : Task
        Its parameters end at the best step by what is held out, or at the last.
    context : Context
        Device, progress, and the state that a checkpoint is kept in.

    Raises
    ------
    InputError
        The loss, a parameter, or every error of what is held out is NaN or infinite; the checkpoint before it
        is kept.
    """
    optimizer = Optimizer(task.groups, task.rules, task.steps)
    run = _Run(task, optimizer, context)
    run.resume()
    with run.cost.running(context.device), torch.enable_grad():
        if run.done == 0:
            run.look()
        while run.done < task.steps:
            batch = task.draw(run.done)
            if task.prepare is not None:
                task.prepare(run.done)
            loss = run.backward(batch, run.done)
            run.processes.average(optimizer.parameters.values())
            norm = optimizer.step()
            run.pending.append((loss, norm))
            if task.stepped is not None:
                with torch.no_grad():
                    task.stepped(run.done, optimizer)
            run.done += 1
            last = run.done == task.steps
            # a GPU would wait at every number that is read
            if last or context.device == "cpu" or run.done % 20 == 0 or run.done % task.every == 0:
                run.settle()
            if last or run.done % task.every == 0:
                run.check()
                run.look()
                run.save()
    run.keep_best()
    return run.result()


class _Run:
    """Where a task stands."""

    def __init__(self, task: Task, optimizer: Optimizer, context: Context) -> None:
        self.task, self.optimizer, self.context = task, optimizer, context
        self.done, self.saved = 0, 0
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.pending: list[tuple[Tensor, Tensor | None]] = []
        self.held_out: dict[int, float] = {}
        self.best: int | None = None
        self.kept: dict[str, Tensor] = {}
        self.cost = Meter()
        self.factor = torch.tensor(task.factor, device=context.device)
        self.processes = Processes.here()
        # processes average gradients that are theirs alone
        fixed = task.fixed if self.processes.count == 1 else None
        self.backward = Graphed(
            self.plain, list(optimizer.parameters.values()), fixed, context.device, task.table
        )

    def plain(self, batch: Any, step: int) -> Tensor:
        """Loss of a step, detached; its gradients are in the parameters."""
        bfloat16 = self.task.precision == "bfloat16"
        with torch.autocast(_kind(self.context.device), torch.bfloat16, bfloat16):
            found = self.task.loss(batch, step)
        loss, penalty = found if isinstance(found, tuple) else (found, 0.0)
        if self.task.factor == 1:
            (loss + penalty).backward()  # type: ignore[no-untyped-call]
        else:
            ((loss + penalty) * self.factor).backward()
            self.take_off([p.grad for p in self.optimizer.parameters.values() if p.grad is not None])
        return loss.detach()

    def take_off(self, gradients: list[Tensor]) -> None:
        """Take the factor off gradients; nothing is read, so that a GPU does not wait and graphs can hold it.

        At a factor of 1 what is infinite stays so: it is the training's own.
        """
        if not gradients:
            return
        largest = torch.stack(torch._foreach_norm(gradients, torch.inf))
        again = (~largest.isfinite().all()) & (self.factor > 1)
        torch._foreach_mul_(gradients, 1 / self.factor)
        for gradient in gradients:
            gradient.masked_fill_(again, 0.0)
        self.factor.copy_(torch.where(again, (self.factor * _LESS).clamp(min=1.0), self.factor))

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        saved = None if self.context.state is None else self.context.state.get(self.task.key)
        if saved is None:
            return
        values, tensors = saved.values, saved.tensors
        self.optimizer.load(tensors, values["optimizer"])
        self.done = self.saved = int(values["done"])
        self.losses, self.norms = list(values["losses"]), list(values["norms"])
        self.held_out = {int(step): loss for step, loss in values["held_out"].items()}
        self.best = values["best"]
        self.factor.fill_(values.get("factor", self.task.factor))
        self.kept = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
        self.cost = Meter(**values["cost"])
        if self.task.generator is not None:
            self.task.generator.set_state(tensors["generator"])

    def settle(self) -> None:
        """Read the losses of the last steps, and stop at one that is no number."""
        for loss, norm in self.pending:
            value = float(loss)
            if not math.isfinite(value):
                raise self.diverged(f"the loss of step {len(self.losses)} is {value}")
            self.losses.append(value)
            if norm is not None:
                self.norms.append(float(norm))
        self.pending.clear()
        recent = self.losses[-20:]
        left = self.cost.per_step(self.done) * (self.task.steps - self.done)
        self.context.progress(
            self.done, self.task.steps,
            f"training {self.task.key}: loss {sum(recent) / len(recent):.4g}, about {_time(left)} left",
        )  # fmt: skip

    def check(self) -> None:
        """Refuse parameters that are no numbers: the last step may break them with a loss that is one."""
        parameters = self.optimizer.parameters
        if not parameters:
            return
        finite = torch.stack([torch.isfinite(parameter).all() for parameter in parameters.values()]).tolist()
        if not all(finite):  # read at once: a GPU would wait at each
            name = list(parameters)[finite.index(False)]
            raise self.diverged(f"{name} is not finite after {self.done} steps")

    def diverged(self, what: str) -> InputError:
        """Say what became of the training, and what is left of it."""
        state = self.context.state
        where = "" if state is None or state.folder is None else f" in {state.folder}"
        return InputError(
            f"training of {self.task.key!r}: {what}; the parameters of step {self.saved} are kept{where}: "
            "lower the learning rates"
        )

    def look(self) -> None:
        """Judge the parameters by what is held out, and keep the best."""
        if self.task.held_out is None:
            return
        with torch.no_grad():
            loss = self.task.held_out()
        if loss is None:
            return
        self.held_out[self.done] = float(loss)
        if math.isfinite(loss) and (self.best is None or loss < self.held_out[self.best]):
            self.best = self.done
            self.kept = {n: p.detach().clone() for n, p in self.optimizer.parameters.items()}

    def save(self) -> None:
        """Write a checkpoint."""
        self.saved = self.done
        if self.context.state is None or self.processes.index:
            return
        tensors, values = self.optimizer.save()
        tensors |= {f"best.{name}": tensor for name, tensor in self.kept.items()}
        if self.task.generator is not None:
            tensors["generator"] = self.task.generator.get_state()
        self.context.state.put(
            self.task.key, tensors,
            {
                "done": self.done, "losses": self.losses, "norms": self.norms, "held_out": self.held_out,
                "best": self.best, "optimizer": values, "cost": self.cost.values(),
                "factor": float(self.factor),
            },
        )  # fmt: skip

    @torch.no_grad()
    def keep_best(self) -> None:
        """Put the best parameters in place; none that were judged may have failed by it."""
        if self.best is None and self.held_out:
            raise self.diverged(f"the error of what is held out is {self.held_out[max(self.held_out)]}")
        if self.best is not None:
            for name, parameter in self.optimizer.parameters.items():
                parameter.copy_(self.kept[name])

    def result(self) -> Result:
        """Hand back losses and cost."""
        self.cost.steps = len(self.losses)
        graphs = self.backward.replayed, self.backward.refused
        return Result(self.losses, self.held_out, self.best, self.norms, self.cost, graphs)


def _kind(device: str) -> str:
    return torch.device(device).type


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
