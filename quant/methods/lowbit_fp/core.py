"""Low-bit floating point over a model: weights and inputs searched by tensor, then rounded or learned."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.floats import FloatGrid, SearchedFloatGrid
from quant.formats.granularity import Granularity, weight_layout
from quant.formats.grids import IntGrid, Params
from quant.formats.quantizer import Quantizer
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.methods.lowbit_fp.config import LowbitFpConfig
from quant.methods.lowbit_fp.rounding import learn
from quant.methods.lowbit_fp.search import sample, search
from quant.methods.plumbing import STATIC, configs
from quant.plans.plan import LayerPlan, Plan
from quant.recordings.rows import LayerRows, layer_rows, spread_batches
from quant.registry import Context, LayerFormat, Outcome
from quant.training.running.finished import keep, kept

__all__ = ["core", "formats"]

EIGHT = ((2, 5), (3, 4), (4, 3), (5, 2))
FOUR = ((1, 2), (2, 1), (3, 0))


def formats(layer: LayerInfo, config: LowbitFpConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if config.policy == "common":
        if role in ("first", "last", "time", "condition"):
            return REASONS[role]
        if role == "modulation":
            return LayerFormat(_quantizer(8, config), None, reason="weight only: " + REASONS[role])
    bits: int = 8 if role in ("first", "last") else config.weight_bits
    note = "first and last layer: 8-bit weights" if bits != config.weight_bits else None
    activation = None if config.activation_bits is None else _quantizer(config.activation_bits, config)
    side = 0 if activation is None else (5 if isinstance(activation.grid, SearchedFloatGrid) else 4)
    return LayerFormat(_quantizer(bits, config), activation, side_bytes=side, reason=note)


def _quantizer(bits: int, config: LowbitFpConfig) -> Quantizer:
    shared, once = Granularity(kind="tensor"), STATIC
    if config.formats == "integer":
        return Quantizer(grid=IntGrid(bits=bits), granularity=shared, schedule=once)
    if bits == 4:
        return Quantizer(grid=SearchedFloatGrid(formats=FOUR, default=1), granularity=shared, schedule=once)
    if config.formats == "hardware":
        return Quantizer(grid=FloatGrid(hardware="e4m3fn"), granularity=shared, schedule=once)
    return Quantizer(grid=SearchedFloatGrid(formats=EIGHT, default=2), granularity=shared, schedule=once)


@torch.no_grad()
def core(model: nn.Module, plan: Plan, config: LowbitFpConfig, context: Context) -> Outcome:
    """Search and round every planned layer; the model is only read. Each is kept in the state."""
    modules = dict(model.named_modules())
    lines, settings = {line.name: line for line in plan.quantized}, configs(plan, config)
    batches = spread_batches(context.recording, config.samples, config.steps)
    results: dict[str, LayerResult] = {}
    stream = layer_rows(model, list(lines), batches, lambda name, width: config.rows, seed=context.seed)
    for index, (name, seen) in enumerate(stream):
        context.progress(index, len(lines), name)
        found = kept(context.state, [lines[name]], seen.rows.device)
        if found is None:
            found = {name: _layer(modules[name], lines[name], seen, settings[name], context)}
            keep(context.state, found)
        results |= found
    context.progress(len(results), len(lines), "done")
    return Outcome(results)


def _layer(
    module: nn.Module, line: LayerPlan, seen: LayerRows, config: LowbitFpConfig, context: Context
) -> LayerResult:
    assert line.weight is not None  # planned layers have a format
    weight = module.get_parameter("weight").detach().float()
    generator = torch.Generator().manual_seed(context.seed)
    params, chosen = search(sample(weight, config.values, generator), line.weight, config.clips)
    notes = {f"weight_{key}": value for key, value in chosen.items()}
    if config.rounding == "learned" and line.weight.bits == 4 and getattr(module, "groups", 1) == 1:
        # layers are counted, not their steps, and kept whole once they are done
        quiet = replace(context, progress=Context().progress, state=None)
        grid = _grid(line.weight, params)
        flat = learn(weight.flatten(1), seen.rows, grid, params["scale"], config, quiet, line.name)
        weight = flat.reshape(weight.shape)
        notes["rounding"] = "learned"
    layout = weight_layout(line.kind)
    shaped = {key: value.reshape([1] * weight.ndim) for key, value in params.items()}
    encoded = EncodedWeight.from_weight(weight, line.weight, layout, shaped)
    if line.activation is None:
        return LayerResult(encoded, None, notes=notes)
    largest = float(torch.maximum(-seen.low, seen.high).max())  # of all inputs, not of the sampled rows
    inputs = sample(seen.rows, config.values, generator)
    found, chosen = search(inputs, line.activation, config.clips, largest)
    notes.update({f"input_{key}": value for key, value in chosen.items()})
    return LayerResult(encoded, line.activation, found, notes=notes)


def _grid(quantizer: Quantizer, params: Params) -> FloatGrid | IntGrid:
    """Look up the format that was chosen."""
    grid = quantizer.grid
    if isinstance(grid, SearchedFloatGrid):
        return grid.format(int(params["format"]))
    assert isinstance(grid, (FloatGrid, IntGrid))
    return grid
