"""QuEST: two stages of tuning with a loss at the tuned layers' outputs and at the model's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.granularity import weight_layout
from quant.methods.plumbing import weight_only
from quant.methods.quest.config import QuestConfig
from quant.methods.quest.policy import Tuned, measure
from quant.plans.cost import TrainingCost
from quant.plans.plan import LayerPlan, Plan
from quant.recordings.trajectories import Batch
from quant.registry import Context, LayerFormat, Outcome
from quant.training.blocks import outputs_of
from quant.training.optimize import Group
from quant.training.policy import by_channel, by_tensor, stored_bytes
from quant.training.sides import Master
from quant.training.student import Student


def formats(layer: LayerInfo, config: QuestConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if config.policy == "common":
        if role in ("first", "last", "time", "condition"):
            return REASONS[role]
        if role == "modulation":
            return weight_only(role)
    edge = role in ("first", "last")
    activation = by_tensor(8 if edge else config.activation_bits)
    side, _ = stored_bytes(layer, activation)
    reason = f"{role} layer: 8-bit inputs" if edge and config.activation_bits != 8 else None
    return LayerFormat(by_channel(config.weight_bits), activation, side, reason)


def training(config: QuestConfig) -> TrainingCost:
    """Cost of the stages."""
    stages = {"none": 0, "time": 1, "time+sensitive": 2}[config.stages]
    return TrainingCost(
        steps=stages * config.train_steps, rows=config.train_rows,
        what="weights of time layers, then of sensitive ones; input ranges",
    )  # fmt: skip


def core(model: nn.Module, plan: Plan, config: QuestConfig, context: Context) -> Outcome:
    """Measure which layers to tune, then tune them in stages."""

    def side(module: nn.Module, line: LayerPlan) -> Master:
        assert line.weight is not None  # planned layers have a format
        return Master(module.get_parameter("weight"), line.weight, weight_layout(line.kind))

    student = Student(model, plan, config, context, side)
    with student.installed():
        tuned = measure(student, config.sensitive, config.probe_rows)
        if config.stages != "none" and tuned.time:
            student.train("time", _groups(student, tuned.time, tuned.time, config),
                          loss=_loss(student, tuned.time, config))  # fmt: skip
        if config.stages == "time+sensitive":
            others = [name for name in student.layers if name not in tuned.time]
            student.train("sensitive", _groups(student, tuned.sensitive, others, config),
                          loss=_loss(student, tuned.sensitive, config))  # fmt: skip
    return student.outcome(_notes(tuned), **_about(student, tuned))


def _groups(student: Student, weights: list[str], inputs: list[str], config: QuestConfig) -> list[Group]:
    """Weights of some layers (their scales stay), ranges of the inputs of some."""
    found = [Group(student.named("side.master", weights), config.rate_weight)]
    return found + student.input_groups(config.rate_input, inputs)


def _loss(student: Student, names: list[str], config: QuestConfig) -> Any:
    """Sum over some layers of the error of their outputs, plus that of the model's output.

    Of Wang et al. 2025: equation 4 with the time layers, 5 with the sensitive ones, 6 for the output.
    """
    layers: dict[str, nn.Module] = {name: student.layers[name] for name in names}

    def loss(batch: Batch, step: int) -> Tensor:
        with outputs_of(layers) as seen:
            target = student.target(batch)
            wanted = dict(seen)
            output = student.predict(batch)
            total = config.output_weight * student.distance(output, target)
            for name, goal in wanted.items():
                total = total + (seen[name].float() - goal.float()).square().mean()
        return total

    return loss


def _notes(tuned: Tuned) -> dict[str, dict[str, Any]]:
    notes: dict[str, dict[str, Any]] = {name: {"tuned": "time"} for name in tuned.time}
    for name, share in tuned.shares.items():
        notes[name] = {"error_share": round(share, 6)}
    for name in tuned.sensitive:
        notes[name]["tuned"] = "sensitive"
    return notes


def _about(student: Student, tuned: Tuned) -> dict[str, Any]:
    def weights(names: list[str]) -> int:
        return sum(student.layers[name].line.n_weights for name in names)

    whole = max(1, weights(list(student.layers)))
    return {
        "time_layers": len(tuned.time), "sensitive_layers": len(tuned.sensitive),
        "time_weights": round(weights(tuned.time) / whole, 6),
        "sensitive_weights": round(weights(tuned.sensitive) / whole, 6),
    }  # fmt: skip
