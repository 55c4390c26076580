"""MixDQ: formats from the table, sinks by measurement, static input ranges."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.denoisers.skips import is_shortcut, split_points, two_ranges
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.layers.encoded import LayerResult
from quant.methods.mixdq.config import LayerBits, MixdqConfig
from quant.methods.mixdq.ranges import RunningRange, input_ranges
from quant.methods.mixdq.sinks import Sink, find_sinks, is_condition, slot, slot_bytes
from quant.methods.plumbing import STATIC, Work, configs, each, free_input, input_bytes
from quant.plans.plan import LayerPlan, Plan
from quant.registry import Context, LayerFormat, Outcome


def formats(layer: LayerInfo, config: MixdqConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if role in config.skip:
        return REASONS[role]
    uniform = LayerBits(weight=config.weight_bits, activation=config.activation_bits)
    bits = config.table.get(layer.name, uniform)
    notes = []
    grouped = config.weight_group is not None and layer.shape[1] >= config.weight_group
    shared, size = ("group", config.weight_group) if grouped else ("channel", None)
    weight = int_quantizer(bits.weight, shared, size, schedule=STATIC)
    activation = None
    if any(fnmatchcase(layer.name, pattern) for pattern in config.float_inputs):
        notes.append("inputs stay in floating point: protected")
    elif bits.activation is not None:
        activation = _activation(layer, bits.activation, config)
    if bits != uniform:
        notes.append("bits from the allocation table")
    side = 0
    if activation is not None and activation.schedule.kind == "static":
        side = input_bytes(layer, activation)
    if _has_slot(config, layer.name, layer.kind, activation):
        side += slot_bytes(layer.shape, layer.bytes // layer.n_weights)
    return LayerFormat(weight, activation, side, "; ".join(notes) or None)


def _activation(layer: LayerInfo, bits: int, config: MixdqConfig) -> Quantizer:
    if config.inputs == "token":
        return free_input(layer, bits)
    static = Quantizer(
        grid=IntGrid(bits=bits, mode="asymmetric"), granularity=Granularity(kind="tensor"), schedule=STATIC
    )
    return two_ranges(static) if config.split_shortcuts and is_shortcut(layer.name) else static


def _has_slot(config: MixdqConfig, name: str, kind: str, activation: Quantizer | None) -> bool:
    """Whether room is kept for a sink; whether there is one is measured later."""
    return config.sinks and kind == "Linear" and activation is not None and is_condition(name)


def core(model: nn.Module, plan: Plan, config: MixdqConfig, context: Context) -> Outcome:
    """Measure sinks and ranges on recorded inputs, then round every weight to the nearest code."""
    lines = plan.quantized
    own = configs(plan, config)
    slots = {x.name: _has_slot(own[x.name], x.name, x.kind, x.activation) for x in lines}
    ratios = {name: own[name].sink_ratio for name, has_slot in slots.items() if has_slot}
    sinks = find_sinks(model, context.recording, ratios, config.batch_size)
    ranges = _ranges(model, lines, own, sinks, config, context)
    halved = any(x.activation and x.activation.granularity.kind == "input_channel" for x in lines)
    splits = split_points(model) if halved else {}
    results: dict[str, LayerResult] = {}
    for work in each(model, plan, config, context):
        line = work.line
        results[line.name] = result = _layer(work, sinks.get(line.name), slots[line.name])
        if line.name in ranges and line.activation is not None:
            low, high = ranges[line.name].bounds(line.activation, splits.get(line.name))
            result.activation_params = line.activation.grid.fit_range(low, high, False, torch.float32)
    return Outcome(results)


def _ranges(
    model: nn.Module, lines: list[LayerPlan], own: dict[str, MixdqConfig], sinks: dict[str, Sink],
    config: MixdqConfig, context: Context,
) -> dict[str, RunningRange]:  # fmt: skip
    """Range of every static input; layers with a momentum of their own cost a calibration of their own."""
    static: dict[float | None, list[LayerPlan]] = {}
    for line in lines:
        if line.activation is not None and line.activation.schedule.kind == "static":
            static.setdefault(own[line.name].momentum, []).append(line)
    found: dict[str, RunningRange] = {}
    for momentum, group in static.items():
        same = config.model_copy(update={"momentum": momentum})
        found |= input_ranges(model, context.recording, group, sinks, same, context)
    return found


def _layer(work: Work, sink: Sink | None, has_slot: bool) -> LayerResult:
    module, result = work.module, work.nearest()
    if has_slot and isinstance(module, nn.Linear):
        result.transform, result.branch = slot(module, sink)
        if sink is not None and sink.constant:
            result.bias = None if module.bias is None else torch.zeros_like(module.bias)
        result.notes = {"sink": "none found"} if sink is None else sink.notes()
    return result
