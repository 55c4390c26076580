"""BinaryDM: binarize from the middle outwards, train weights, scales and biases against the teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant.denoisers.inventory import LayerInfo, find_layers
from quant.denoisers.roles import REASONS, role_of
from quant.formats.codebooks import BinaryGrid
from quant.formats.granularity import Granularity, weight_layout
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Schedule
from quant.layers.attention import AttentionFormat, find_attention
from quant.methods.binarydm.binarizer import Binary
from quant.methods.binarydm.config import BinaryDmConfig
from quant.methods.binarydm.mimic import Mimic
from quant.methods.plumbing import configs
from quant.plans.cost import TrainingCost
from quant.plans.plan import LayerPlan, Plan
from quant.recordings.trajectories import Batch
from quant.registry import Context, LayerFormat, Outcome
from quant.training.fake import WeightSide
from quant.training.optimize import Group, Optimizer
from quant.training.policy import by_channel, by_tensor, stored_bytes
from quant.training.sides import Master
from quant.training.student import Student

KEPT = ("first", "last", "time", "modulation", "condition")
PROJECTIONS = ("to_q", "to_k", "to_v", "to_qkv", "to_kv")


def formats(layer: LayerInfo, config: BinaryDmConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if role in KEPT and not layer.name.endswith("time_emb_proj"):  # one in every block: binary in the paper
        if config.kept_bits is None:
            return REASONS[role]
        return LayerFormat(by_channel(config.kept_bits), None, reason=f"not binary: {REASONS[role]}")
    bases = config.bases
    outer = layer.depth is not None and min(layer.depth, 1 - layer.depth) < config.outer
    if outer and config.outer_bases > bases:
        bases = config.outer_bases
    weight = Quantizer(
        grid=BinaryGrid(bits=bases), granularity=Granularity(kind="channel"),
        schedule=Schedule(kind="static"),
    )  # fmt: skip
    note = f"outer block: {bases} bases" if bases != config.bases else None
    if config.activation_bits is None:
        return LayerFormat(weight, None, reason=note)
    activation = by_tensor(config.activation_bits, mode="symmetric")
    return LayerFormat(weight, activation, stored_bytes(layer, activation)[0], note)


def training(config: BinaryDmConfig) -> TrainingCost:
    """Cost of the one stage."""
    what = "weights, scales of bases and inputs, biases"
    return TrainingCost(
        steps=config.train_steps, rows=config.forward_rows, in_turn=max(1, config.unroll), what=what
    )


def core(model: nn.Module, plan: Plan, config: BinaryDmConfig, context: Context) -> Outcome:
    """Train, then keep signs and scales."""

    def side(module: nn.Module, line: LayerPlan) -> WeightSide:
        assert line.weight is not None  # planned layers have a format
        weight = module.get_parameter("weight")
        if not isinstance(line.weight.grid, BinaryGrid):
            return Master(weight, line.weight, weight_layout(line.kind))
        return Binary(weight, line.weight, weight_layout(line.kind), config.learned)

    student = Student(
        model, plan, config, context, side, train_bias=True, attention=attention_formats(model, plan, config)
    )
    order = warm_up_order(model, student)

    def binarize(done: int) -> None:
        for name, layer in student.layers.items():
            layer.active = not config.warm_up or order[name] * config.warm_up <= done

    def stepped(step: int, optimizer: Optimizer) -> None:
        binarize(step + 1)

    with student.installed():
        mimic = Mimic(student, config.directions) if config.mimicking else None

        def mimicking(batch: Batch, step: int) -> Tensor:
            assert mimic is not None
            return mimic.loss(batch, config.mimicking)

        student.train(
            "binary", _groups(student, config), loss=mimicking if mimic else None, prepare=binarize,
            stepped=stepped,
            keep=lambda: all(layer.active for layer in student.layers.values()),
            fixed=lambda step: tuple(layer.active for layer in student.layers.values()),
        )  # fmt: skip
        binarize(config.train_steps + (max(order.values(), default=0) + 1) * config.warm_up)
    return student.outcome(**_sizes(student))


def warm_up_order(model: nn.Module, student: Student) -> dict[str, int]:
    """Count the groups of layers: 0 for the middle blocks, then outwards; those outside of blocks last."""
    depths = {layer.name: layer.depth for layer in find_layers(model) if layer.name in student.layers}
    distances = sorted({round(abs(d - 0.5), 6) for d in depths.values() if d is not None})
    place = {distance: index for index, distance in enumerate(distances)}
    return {
        name: len(place) if depth is None else place[round(abs(depth - 0.5), 6)]
        for name, depth in depths.items()
    }


def attention_formats(model: nn.Module, plan: Plan, config: BinaryDmConfig) -> dict[str, AttentionFormat]:
    """Probabilities and values at the bits of inputs, in modules whose projections are quantized."""
    own = configs(plan, config)
    found = {}
    for name in find_attention(model):
        first = next((own[f"{name}.{p}"] for p in PROJECTIONS if f"{name}.{p}" in own), None)
        bits = None if first is None or config.attention == "float" else first.activation_bits
        if bits is not None:
            scores = Quantizer(
                grid=IntGrid(bits=bits, mode="unsigned"), granularity=Granularity(kind="token")
            )
            found[name] = AttentionFormat(scores=scores, values=int_quantizer(bits, "token"))
    return found


def _groups(student: Student, config: BinaryDmConfig) -> list[Group]:
    found = [
        Group(student.named("side.master") | student.named("own"), config.rate_weight),
        *student.input_groups(config.rate_scale),
        *student.scale_groups(config.rate_scale),
    ]
    if config.learned:
        for name in binary_layers(student):
            bases = student.named("side.bases", [name])
            size = sum(float(p.detach().mean()) for p in bases.values()) / len(bases)
            # scales of a layer of zeros are zero: in units of themselves they could never move
            found.append(Group(bases, config.rate_scale * size or config.rate_weight))
    return found


def binary_layers(student: Student) -> list[str]:
    """Names of the layers with binary weights: all but those at ``kept_bits``."""
    return [name for name, layer in student.layers.items() if isinstance(layer.side, Binary)]


def _sizes(student: Student) -> dict[str, Any]:
    """Storage and operations of the binary layers that count every basis, beside the publication's rule."""
    weights = bits = operations = published = macs = 0
    for name in binary_layers(student):
        line = student.layers[name].line
        bases = line.weight.bits if line.weight else 32
        inputs = line.activation.bits if line.activation else 32
        weights += line.n_weights
        bits += 8 * line.bytes_after
        macs += line.macs or 0
        operations += (line.macs or 0) * bases * inputs
        published += (line.macs or 0) * inputs
    return {
        "bits_a_weight": round(bits / max(1, weights), 4),
        "binary_layers": {
            "storage": round(32 * weights / max(1, bits), 3),
            "operations": round(64 * macs / max(1, operations), 3),
            "operations_published_rule": round(64 * macs / max(1, published), 3),
        },
    }
