"""Parameter groups with rules of their own, and an optimizer whose state goes through a file unchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

_FEW = 8
"""Groups that an optimizer works off one by one without a loss."""
Schedule = Literal["constant", "cosine", "linear"]


@dataclass
class Group:
    """Parameters that share a rule.

    Attributes
    ----------
    parameters : dict of str to Parameter
        By names that are unique in the whole task.
    rate : float
        Learning rate.
    decay : float
        Decoupled weight decay.
    gradient : float
        Factor on the gradients. Adam does not see it (its update is scale-free), SGD does.
    """

    parameters: dict[str, nn.Parameter]
    rate: float
    decay: float = 0.0
    gradient: float = 1.0


@dataclass(frozen=True)
class Rules:
    """What holds for all groups."""

    schedule: Schedule = "constant"
    warm_up: int = 0
    """Steps over which the rate rises from nothing."""
    clip: float | None = None
    """Largest norm of all gradients together."""
    betas: tuple[float, float] = (0.9, 0.999)
    optimizer: Literal["adam", "sgd"] = "adam"
    trace: bool = False
    """Measure the norm of the gradients at every step."""


@dataclass
class Optimizer:
    """Groups under rules for a number of steps."""

    groups: list[Group]
    rules: Rules
    steps: int
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        rows: list[dict[str, Any]] = []
        self.names = []
        for group in self.groups:
            self.names += group.parameters
            rows.append(
                {
                    "params": list(group.parameters.values()),
                    "lr": group.rate,
                    "weight_decay": group.decay,
                }
            )
        if len(set(self.names)) < len(self.names):
            raise ValueError("two trained parameters have one name")
        rows = [row for row in rows if row["params"]]
        if self.rules.optimizer == "sgd":
            self.torch: torch.optim.Optimizer = torch.optim.SGD(rows)
        else:
            # each group is a call of its own: with hundreds of them their kernels would be all the time
            cuda = all(p.is_cuda for p in self.parameters.values())
            fused = cuda and len(rows) > _FEW
            self.torch = torch.optim.AdamW(rows, betas=self.rules.betas, fused=fused or None)
        self.schedule = self._scheduler()

    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        count, rules = max(1, self.steps), self.rules
        if rules.schedule == "cosine" and not rules.warm_up:
            return torch.optim.lr_scheduler.CosineAnnealingLR(self.torch, count)

        def factor(step: int) -> float:
            if step < rules.warm_up:
                return (step + 1) / rules.warm_up
            done = (step - rules.warm_up) / max(1, count - rules.warm_up)
            if rules.schedule == "cosine":
                return (1 + math.cos(math.pi * done)) / 2
            return 1 - done if rules.schedule == "linear" else 1.0

        return torch.optim.lr_scheduler.LambdaLR(self.torch, factor)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All trained parameters by name."""
        return {name: p for group in self.groups for name, p in group.parameters.items()}

    def step(self) -> Tensor | None:
        """Move along the gradients that were collected, and forget them; returns their norm if it is wanted.

        Parameters without a gradient keep every bit: neither momentum nor decay moves them.
        """
        for group in self.groups:
            if group.gradient != 1.0:
                for parameter in group.parameters.values():
                    if parameter.grad is not None:
                        parameter.grad.mul_(group.gradient)
        found = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = None
        if found and (self.rules.trace or self.rules.clip):
            norm = torch.nn.utils.get_total_norm(found)
        if norm is not None and self.rules.clip:
            factor = (self.rules.clip / norm).clamp(max=1.0)
            torch._foreach_mul_(found, factor)
        self.torch.step()
        self.torch.zero_grad(set_to_none=True)
        self.schedule.step()
        return norm

    def forget(self, names: set[str]) -> None:
        """Drop the moments of parameters whose meaning has changed."""
        for name, parameter in self.parameters.items():
            if name in names:
                self.torch.state.pop(parameter, None)

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Parameters and moments as tensors, rates and counters as JSON values."""
        tensors = {f"parameter.{name}": p.detach() for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.torch.state.get(parameter, {}).items():
                tensors[f"moment.{key}.{name}"] = torch.as_tensor(value)
        last = {k: v for k, v in self.schedule.state_dict().items() if isinstance(v, (int, float, list))}
        rates = [group["lr"] for group in self.torch.param_groups]
        return tensors, {"rates": rates, "schedule": {k: v for k, v in last.items() if k != "lr_lambdas"}}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Undo `save`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
        self.torch.state.clear()
        fused = {id(p) for row in self.torch.param_groups if row.get("fused") for p in row["params"]}
        for key, tensor in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "moment":
                slot, _, name = rest.partition(".")
                parameter = self.parameters[name]
                if slot == "step":
                    # Adam counts on the CPU, unless it is fused: its kernel would read the host's memory
                    device = parameter.device if id(parameter) in fused else "cpu"
                    self.torch.state[parameter][slot] = tensor.to(device, copy=True)
                else:  # in the parameter's order of dimensions, which a file does not keep
                    self.torch.state[parameter][slot] = torch.empty_like(parameter).copy_(tensor)
        for group, rate in zip(self.torch.param_groups, values["rates"], strict=True):
            group["lr"] = rate
        self.schedule.__dict__.update(values["schedule"])
