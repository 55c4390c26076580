"""EDA-DM: formats, then unit after unit behind the quantized prefix."""

from __future__ import annotations

import torch
from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.denoisers.skips import is_shortcut, split_points, two_ranges
from quant.formats.granularity import Granularity, input_layout
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.layers.encoded import LayerResult
from quant.layers.install import installed
from quant.methods.eda_dm.config import EdaDmConfig
from quant.methods.eda_dm.reconstruct import reconstruct
from quant.methods.eda_dm.sampling import calibration
from quant.methods.plumbing import STATIC, Work, each, input_bytes, one_input
from quant.observers.ranges import MinMax, MseSearch
from quant.plans.plan import Plan
from quant.registry import Context, LayerFormat, Outcome
from quant.training.blocks import find_units, inputs_of
from quant.training.running.finished import keep, kept

_SEARCH = MseSearch(norm=2.4, candidates=40)


def formats(layer: LayerInfo, config: EdaDmConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    edge = role in ("first", "last")
    if role in config.skip or (edge and config.edges == "skip"):
        return REASONS[role]
    light = role == "modulation" and config.modulation == "weight-only"
    reason = None
    if edge:
        reason = f"{role} layer: 8-bit weights" + (", float inputs" if role == "last" else "")
    elif light:
        reason = "weight only: " + REASONS[role]
    weight = Quantizer(
        grid=IntGrid(bits=8 if edge or light else config.weight_bits, mode="asymmetric"),
        granularity=Granularity(kind="channel"),
        schedule=STATIC,
        observer=_SEARCH,
    )
    if config.activation_bits is None or role == "last" or light:
        return LayerFormat(weight, None, reason=reason)
    activation = Quantizer(
        grid=IntGrid(bits=config.activation_bits, mode="asymmetric"),
        granularity=Granularity(kind="tensor"),
        schedule=STATIC,
        observer=_SEARCH,
    )
    if config.split_shortcuts and is_shortcut(layer.name):
        # the extremes of a half are those of its channels; a search a channel would not be the half's
        activation = two_ranges(activation).model_copy(update={"observer": MinMax()})
    return LayerFormat(weight, activation, input_bytes(layer, activation), reason)


def core(model: nn.Module, plan: Plan, config: EdaDmConfig, context: Context) -> Outcome:
    """Draw calibration points, then reconstruct every unit in execution order.

    Units that are done are kept in the context's state.
    """
    lines = {line.name: line for line in plan.quantized}
    batch, drawn = calibration(model, context.recording, config, context.seed)
    generator = torch.Generator(context.device).manual_seed(context.seed)
    blocks = config.reconstruction in ("fine", "block")
    units = find_units(model, list(lines), batch, blocks)
    halved = any(x.activation and x.activation.granularity.kind == "input_channel" for x in lines.values())
    splits = split_points(model) if halved else {}
    results: dict[str, LayerResult] = {}
    for index, unit in enumerate(units):
        context.progress(index, len(units), unit.name)
        found = kept(context.state, [lines[name] for name in unit.layers], context.device, generator)
        if found is not None:
            results |= found
            continue
        full = inputs_of(model, unit.name, batch, config.batch_size)
        if results:
            with installed(model, results):
                inputs = inputs_of(model, unit.name, batch, config.batch_size)
        else:
            inputs = full
        found = reconstruct(model, unit, lines, full, inputs, splits, config, generator, context)
        keep(context.state, found, generator)
        results |= found
    for work in each(model, plan, config, Context()):
        if work.line.name not in results:
            results[work.line.name] = _unreached(work)
    first = results[units[0].layers[0]] if units else None
    if first is not None:
        first.notes = {**first.notes, **drawn}
    context.progress(len(units), len(units), "done")
    return Outcome(results)


def _unreached(work: Work) -> LayerResult:
    """Encode a layer that no forward reaches: nearest rounding, an input range of zero."""
    result, line = work.nearest(), work.line
    if line.activation is not None:
        shape = one_input(line.kind, line.shape[1])
        blank = line.activation.blank_params(shape, input_layout(line.kind))
        result.activation_params = {key: value.to(work.weight.device) for key, value in blank.items()}
    result.notes = {"unit": "never reached by a forward"}
    return result
