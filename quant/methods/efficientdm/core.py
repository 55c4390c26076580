"""EfficientDM: adapters inside the quantizer, trained against the full-precision model's trajectories.

Equations are those of He et al. 2024: the loss (7) is `Student.output_loss`, input steps by timestep (9) are
`quant.training.sides.StoredInput`.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.granularity import weight_layout
from quant.methods.efficientdm.config import EfficientDmConfig
from quant.methods.plumbing import configs, weight_only
from quant.plans.cost import TrainingCost
from quant.plans.plan import LayerPlan, Plan
from quant.registry import Context, LayerFormat, Outcome
from quant.training.optimize import Group, Rules
from quant.training.policy import by_channel, by_tensor, capped_rank, own_rank, stored_bytes
from quant.training.sides import Master
from quant.training.student import Student

LEFT = ("*conv_shortcut", "*downsamplers.*")
FROZEN = ("first", "last", "time", "modulation")


def formats(layer: LayerInfo, config: EfficientDmConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if config.policy == "common":
        if role in ("first", "last", "time", "condition"):
            return REASONS[role]
        if role == "modulation":
            return weight_only(role)
    elif any(fnmatchcase(layer.name, pattern) for pattern in LEFT):
        return "residual shortcut or downsampling: not quantized in the paper's policy"
    frozen = config.policy == "paper" and role in FROZEN
    weight = by_channel(8 if frozen else config.weight_bits)
    activation = by_tensor(8 if frozen else config.activation_bits, config.temporal and not frozen)
    side, note = stored_bytes(layer, activation)
    if frozen:
        return LayerFormat(weight, activation, side, f"{role} layer: 8 bits, not trained")
    capped = capped_rank(config.rank, own_rank(layer.shape))
    return LayerFormat(weight, activation, side, "; ".join(word for word in (note, capped) if word) or None)


def training(config: EfficientDmConfig) -> TrainingCost:
    """Cost of the one stage."""
    what = "low-rank factors, steps, zero points"
    return TrainingCost(
        steps=config.train_steps, rows=config.forward_rows, in_turn=max(1, config.unroll), what=what
    )


class Adapted(Master):
    """``Q(W0 + B A)`` (equation 6): W0 is rounded from the start, factors are merged before rounding.

    Parameters
    ----------
    rank : int
        Of the factors of the weight as (out, in * kernel * kernel): for a convolution A has the layer's own
        kernel and B is 1 x 1.
    """

    def __init__(self, weight: Tensor, line: LayerPlan, rank: int) -> None:
        assert line.weight is not None  # planned layers have a format
        super().__init__(weight, line.weight, weight_layout(line.kind))
        with torch.no_grad():
            self.master.copy_(self.quantizer.fake(self.master, self.layout, self.params()))
        rows, columns = self.master.flatten(1).shape
        rank = min(rank, own_rank(self.master.shape))
        if not rank:
            return
        self.down = nn.Parameter(torch.empty(rank, columns))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def effective(self) -> Tensor:
        if not hasattr(self, "up"):
            return self.master
        return self.master + (self.up @ self.down).reshape(self.master.shape)


def core(model: nn.Module, plan: Plan, config: EfficientDmConfig, context: Context) -> Outcome:
    """Train the factors, merge them, hand back plain integers."""
    own = configs(plan, config)

    def side(module: nn.Module, line: LayerPlan) -> Master:
        weight = module.get_parameter("weight")
        if line.name not in trained:
            assert line.weight is not None
            return Master(weight, line.weight, weight_layout(line.kind))
        return Adapted(weight, line, own[line.name].rank)

    trained = {
        line.name for line in plan.quantized
        if line.activation is not None
        and not (own[line.name].policy == "paper" and role_of(line.name) in FROZEN)
    }  # fmt: skip
    student = Student(model, plan, config, context, side)
    before = {name: student.layers[name].side.encoded().codes() for name in trained}
    optimizer: Any = "sgd" if config.scale_aware == "gradient" else "adam"
    with student.installed():
        student.train("factors", groups(student, trained, config), rules=Rules("linear", optimizer=optimizer))
    notes = {}
    for name in plan_order(plan, trained):
        moved = student.layers[name].side.encoded().codes() != before[name]
        notes[name] = {"codes_moved": round(float(moved.float().mean()), 6)}
    share = [note["codes_moved"] for note in notes.values()]
    return student.outcome(notes, codes_moved=round(sum(share) / max(1, len(share)), 6))


def plan_order(plan: Plan, names: set[str]) -> list[str]:
    """Names as the plan has them."""
    return [line.name for line in plan.quantized if line.name in names]


def groups(student: Student, trained: set[str], config: EfficientDmConfig) -> list[Group]:
    """Each layer's factors in units of its step (equation 8), all scales of weights, all ranges of inputs."""
    found = []
    names = [name for name in student.layers if name in trained]
    for name in names:
        side: Any = student.layers[name].side
        step = float(side.params()["scale"].detach().mean())
        factors = student.named("side.up", [name]) | student.named("side.down", [name])
        factors = factors or student.named("side.master", [name])
        rate = config.rate_factors * (step if config.scale_aware == "rate" else 1.0)
        found.append(Group(factors, rate, gradient=step if config.scale_aware == "gradient" else 1.0))
    found += student.scale_groups(config.rate_weight_scale, names)
    return found + student.input_groups(config.rate_input, names)
