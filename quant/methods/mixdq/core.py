"""MixDQ: formats from the table, sinks by measurement, static input ranges."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from quant.encoded import EncodedWeight, LayerResult, param_bytes
from quant.errors import MissingDataError
from quant.granularity import Granularity, input_layout, weight_layout
from quant.grid import IntGrid
from quant.layers import LayerInfo
from quant.methods.mixdq.config import LayerBits, MixdqConfig
from quant.methods.mixdq.ranges import input_ranges
from quant.methods.mixdq.sinks import Sink, find_sinks, is_condition, slot, slot_bytes
from quant.plans import LayerPlan, Plan
from quant.policy import REASONS, role_of
from quant.quantizer import Quantizer, int_quantizer
from quant.registry import Context, LayerFormat
from quant.schedule import Schedule
from quant.skips import is_shortcut, split_points, two_ranges

_STATIC = Schedule(kind="static")


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
    weight = int_quantizer(bits.weight, shared, size, schedule=_STATIC)
    activation = None
    if any(fnmatchcase(layer.name, pattern) for pattern in config.float_inputs):
        notes.append("inputs stay in floating point: protected")
    elif bits.activation is not None:
        activation = _activation(layer, bits.activation, config)
    if bits != uniform:
        notes.append("bits from the allocation table")
    side = 0
    if activation is not None and activation.schedule.kind == "static":
        shape = (1, layer.shape[1] * layer.groups, 1, 1) if layer.kind == "Conv2d" else (1, layer.shape[1])
        side = sum(param_bytes(activation.blank_params(shape, input_layout(layer.kind))).values())
    if _has_slot(config, layer.name, layer.kind, activation):
        side += slot_bytes(layer.shape)
    return LayerFormat(weight, activation, side, "; ".join(notes) or None)


def _activation(layer: LayerInfo, bits: int, config: MixdqConfig) -> Quantizer:
    if config.inputs == "token":
        free = layer.kind == "Linear" or layer.kernel_size == 1
        return int_quantizer(bits, "token" if free else "sample")
    static = Quantizer(
        grid=IntGrid(bits=bits, mode="asymmetric"), granularity=Granularity(kind="tensor"), schedule=_STATIC
    )
    return two_ranges(static) if config.split_shortcuts and is_shortcut(layer.name) else static


def _has_slot(config: MixdqConfig, name: str, kind: str, activation: Quantizer | None) -> bool:
    """Whether room is kept for a sink; whether there is one is measured later."""
    return config.sinks and kind == "Linear" and activation is not None and is_condition(name)


def handler(model: nn.Module, plan: Plan, config: MixdqConfig, context: Context) -> dict[str, LayerResult]:
    """Measure sinks and ranges on recorded inputs, then round every weight to the nearest code."""
    if context.trajectories is None:
        raise MissingDataError(
            "mixdq calibrates on recorded trajectories and got none: make them with quant.record"
        )
    lines = plan.quantized
    slots = [line.name for line in lines if _has_slot(config, line.name, line.kind, line.activation)]
    sinks = find_sinks(model, context.trajectories, slots, config)
    static = [x for x in lines if x.activation is not None and x.activation.schedule.kind == "static"]
    ranges = input_ranges(model, context.trajectories, static, sinks, config, context)
    splits = split_points(model) if config.split_shortcuts else {}
    modules = dict(model.named_modules())
    results: dict[str, LayerResult] = {}
    for index, line in enumerate(lines):
        context.progress(index, len(lines), line.name)
        sink = sinks.get(line.name) if line.name in slots else None
        result = _layer(modules[line.name], line, sink, line.name in slots)
        if line.name in ranges and line.activation is not None:
            low, high = ranges[line.name].bounds(line.activation, splits.get(line.name))
            result.activation_params = line.activation.grid.fit_range(low, high, False, torch.float32)
        results[line.name] = result
    context.progress(len(lines), len(lines), "done")
    return results


def _layer(module: nn.Module, line: LayerPlan, sink: Sink | None, has_slot: bool) -> LayerResult:
    weight: Tensor = getattr(module, "weight")  # noqa: B009 - a Tensor attribute mypy cannot see
    if line.weight is None:
        raise RuntimeError(f"{line.name!r} has no format in the plan")
    encoded = EncodedWeight.from_weight(weight, line.weight, weight_layout(line.kind))
    result = LayerResult(encoded, line.activation)
    if has_slot and isinstance(module, nn.Linear):
        result.transform, result.branch = slot(module, sink)
        if sink is not None and sink.constant:
            result.bias = None if module.bias is None else torch.zeros_like(module.bias)
        result.notes = {"sink": "none found"} if sink is None else sink.notes()
    return result
