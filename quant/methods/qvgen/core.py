"""QVGen: train every weight with a helper, let the helper decay, keep plain integers."""

from __future__ import annotations

from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.granularity import Granularity, weight_layout
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.methods.plumbing import weight_only
from quant.methods.qvgen.config import QvgenConfig
from quant.methods.qvgen.helper import Helped, helper_rank
from quant.methods.qvgen.kept import Kept, kept_rank
from quant.methods.qvgen.schedule import Decay
from quant.methods.qvgen.started import Started, as_svdquant, solve
from quant.methods.svdquant.formats import formats as svdquant_formats
from quant.plans.cost import TrainingCost
from quant.plans.plan import LayerPlan, Plan
from quant.registry import Context, LayerFormat, Outcome
from quant.training.fake import WeightSide
from quant.training.optimize import Group, Optimizer, Rules
from quant.training.policy import by_channel, capped_rank, own_rank
from quant.training.student import Student


def formats(layer: LayerInfo, config: QvgenConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    if config.start == "svdquant":
        return svdquant_formats(layer, as_svdquant(config))
    role = role_of(layer.name)
    if config.policy == "common":
        if role in ("first", "last", "time", "condition"):
            return REASONS[role]
        if role == "modulation":
            return weight_only(role)
    elif role == "first" and layer.kind == "Conv2d":
        return REASONS[role]
    free = layer.kind == "Linear" or layer.kernel_size == 1
    weight, shared = by_channel(config.weight_bits), Granularity(kind="token" if free else "sample")
    if config.group is not None and layer.shape[1] >= config.group:
        shared = Granularity(kind="group", group_size=config.group)
        weight = weight.model_copy(update={"granularity": shared})
    activation = Quantizer(grid=IntGrid(bits=config.activation_bits, mode="asymmetric"), granularity=shared)
    if has_branch(layer.kind, config):
        rank = kept_rank(config.rank, *layer.shape[:2])
        capped = f"rank {rank} of {config.rank}: at most a quarter of the layer's"
        note = capped if rank < config.rank else None
        return LayerFormat(weight, activation, 2 * rank * sum(layer.shape[:2]), note)
    helped = config.helper in ("decay", "at-once")
    note = capped_rank(config.rank, helper_rank(own_rank(layer.shape))) if helped else None
    return LayerFormat(weight, activation, reason=note)


def has_branch(kind: str, config: QvgenConfig) -> bool:
    """Whether a layer with rounded inputs keeps a branch."""
    return config.helper == "kept" and kind == "Linear"


def training(config: QvgenConfig) -> TrainingCost:
    """Cost of the one stage."""
    what = "all weights and biases, scales, helpers"
    return TrainingCost(
        steps=config.train_steps, rows=config.forward_rows, in_turn=max(1, config.unroll), what=what
    )


def core(model: nn.Module, plan: Plan, config: QvgenConfig, context: Context) -> Outcome:
    """Train until the helpers are gone."""
    steps = config.train_steps - round(config.train_steps * config.plain)
    rank = 0 if config.helper in ("none", "kept") else config.rank
    decay = Decay.of(rank, steps, config.fade, config.helper == "at-once")

    start = solve(model, plan, config, context) if config.start == "svdquant" else {}

    def side(module: nn.Module, line: LayerPlan) -> WeightSide:
        assert line.weight is not None  # planned layers have a format
        if start:
            near = module.get_parameter("weight") if config.masters == "weights" else None
            return Started(start[line.name], near)
        weight, layout = module.get_parameter("weight"), weight_layout(line.kind)
        # layers with floating-point inputs and 8-bit weights have nothing to gain from a helper
        rounded = line.activation is not None
        if rounded and has_branch(line.kind, config):
            return Kept(weight, line.weight, layout, config.rank)
        return Helped(weight, line.weight, layout, decay.rank if rounded else 0)

    student = Student(model, plan, config, context, side, train_bias=True)
    for name, found in start.items():
        if found.bias is not None:  # of inputs that were moved
            student.layers[name].own["bias"].data.copy_(found.bias)
    sides = {name: layer.side for name, layer in student.layers.items() if isinstance(layer.side, Helped)}

    def prepare(step: int) -> None:
        for helped in sides.values():  # a function of the step: a training that goes on finds it again
            helped.at(decay.rank_at(step), decay.factor_at(step))

    def stepped(step: int, optimizer: Optimizer) -> None:
        if decay.ends_phase(step):
            changed = {name for name, helped in sides.items() if helped.cut(decay.rank_at(step + 1))}
            # moments belong to the old columns
            optimizer.forget({f"{name}.side.{part}" for name in changed for part in ("up", "down")})

    rules = Rules(
        "cosine", warm_up=config.train_steps // 10, clip=1.0, betas=(0.9, 0.95), trace=True
    )  # fmt: skip
    with student.installed():
        result = student.train(
            "qat", _groups(student, config), prepare=prepare, stepped=stepped, rules=rules,
            keep=lambda: all(helped.rank == 0 for helped in sides.values()), fixed=decay.rank_at,
        )  # fmt: skip
    for helped in sides.values():
        helped.cut(0)  # without a step there was nothing that it could vanish in
    norm = sum(result.norms) / max(1, len(result.norms))
    return student.outcome(helper_phases=decay.phases, gradient_norm=round(norm, 8))


def _groups(student: Student, config: QvgenConfig) -> list[Group]:
    helpers = student.named("side.up") | student.named("side.down")
    masters = student.named("side.master") if config.tuned == "all" else {}
    return [
        Group(masters, config.rate_weight, config.decay),
        Group(student.named("own") | helpers, config.rate_weight),
        Group(student.named("side.zero"), config.rate_scale),
        *student.scale_groups(config.rate_scale),
    ]
