"""LRQ-DiT: measure inputs, smooth, rotate by J, quantize weights on the twin-log grid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.denoisers.inventory import LayerInfo, find_layers
from quant.denoisers.roles import REASONS, role_of
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.logs import LogGrid
from quant.formats.quantizer import Quantizer
from quant.layers.attachments import Smooth
from quant.layers.encoded import LayerResult
from quant.layers.rotations import Rotate, index_dtype
from quant.methods.lrq_dit.config import LrqDitConfig
from quant.methods.lrq_dit.rotation import (
    InputStats,
    can_rotate,
    kind_of,
    outlier_rotation,
    smoothing_factor,
)
from quant.methods.lrq_dit.twin_log import fit, fit_as_released
from quant.methods.plumbing import STATIC, Work, configs, each, free_input, weight_only
from quant.observers.ranges import MinMax, MseSearch
from quant.plans.plan import Plan
from quant.recordings.rows import watch
from quant.registry import Context, LayerFormat, Outcome
from quant.training.running.finished import keep, kept


def formats(layer: LayerInfo, config: LrqDitConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if role in config.skip or (role == "modulation" and config.modulation == "skip"):
        return REASONS[role]
    if role == "modulation":
        return weight_only(role)
    side, reason = 0, None
    if layer.groups > 1:
        reason = "grouped convolution: channels can be neither smoothed nor rotated together"
    else:
        side = 4 * layer.shape[1] * (config.smoothing is not None)
        if config.rotation != "none" and not can_rotate(layer):
            reason = f"not rotated: no product of small factors has {layer.shape[1]} points"
        elif config.rotation in ("adaptive", "outlier"):
            # the permutation; kept (as identity) where J says Hadamard
            side += index_dtype(layer.shape[1]).itemsize * layer.shape[1]
    return LayerFormat(_weight(config), _activation(layer, config), side, reason)


def _weight(config: LrqDitConfig) -> Quantizer:
    rows = Granularity(kind="channel")
    if config.weight_grid == "twin-log":
        grid = LogGrid(bits=config.weight_bits, octaves=None, offset=config.as_released)
        return Quantizer(grid=grid, granularity=rows, schedule=STATIC, scale_dtype="bfloat16")
    observer = MinMax() if config.weight_grid == "uniform" else MseSearch()
    uniform = IntGrid(bits=config.weight_bits, mode="asymmetric")
    return Quantizer(grid=uniform, granularity=rows, schedule=STATIC, observer=observer)


def _activation(layer: LayerInfo, config: LrqDitConfig) -> Quantizer | None:
    if config.activation_bits is None:
        return None
    return free_input(layer, config.activation_bits)


def core(model: nn.Module, plan: Plan, config: LrqDitConfig, context: Context) -> Outcome:
    """Measure, choose, quantize; the weights one layer at a time, each kept in the context's state."""
    infos = {info.name: info for info in find_layers(model)}
    settings = configs(plan, config)
    stats = {
        line.name: InputStats(_axis(infos[line.name]))
        for line in plan.quantized
        if role_of(line.name) != "modulation" and infos[line.name].groups == 1
    }
    watch(model, context.recording, stats, lambda name, x, _: stats[name].update(x), samples=config.samples)
    salient = [n for n in stats if _kind(infos[n], settings[n], stats[n]) == "outlier" and stats[n].count]
    if salient:
        watch(model, context.recording, salient, lambda n, x, _: stats[n].keep(x), samples=config.samples)
    results: dict[str, LayerResult] = {}
    for index, work in enumerate(each(model, plan, config, context)):
        name = work.line.name
        found = kept(context.state, [work.line], work.weight.device)
        if found is None:
            found = {name: _layer(work, infos[name], stats.pop(name, None), context.seed + index)}
            keep(context.state, found)
        results |= found
    return Outcome(results)


def _layer(work: Work, info: LayerInfo, stats: InputStats | None, seed: int) -> LayerResult:
    transform, notes = (
        (None, {}) if stats is None else _transform(work.weight, info, work.config, stats, seed)
    )
    # a bfloat16 model's weight has no digits left for the rounding errors of a rotation
    exact = work.weight.to(torch.promote_types(work.weight.dtype, torch.float32))
    turned = exact if transform is None else transform.to_weight(exact)
    params = None
    if isinstance(work.format.grid, LogGrid):
        params = (fit_as_released if work.format.grid.offset else fit)(turned, work.format)
    encoded = work.encoded(turned, params)
    return LayerResult(encoded, work.line.activation, transform=transform, notes=notes)


def _transform(
    weight: Tensor, info: LayerInfo, config: LrqDitConfig, stats: InputStats, seed: int
) -> tuple[Smooth | Rotate | None, dict]:
    """Smoothing and rotation of one layer, and what the ledger says about them."""
    count, axis = info.shape[1], _axis(info)
    kind = _kind(info, config, stats)
    notes: dict = {"j": round(stats.j, 6), "rotation": kind}
    factor = None
    if config.smoothing is not None:
        absmax = torch.zeros(count) if stats.absmax is None else stats.absmax
        factor = smoothing_factor(absmax, weight, config.smoothing)
    if kind == "none":
        return (None if factor is None else Smooth(factor, axis)), notes
    order = None
    if config.rotation in ("adaptive", "outlier"):
        order = torch.arange(count, dtype=index_dtype(count), device=weight.device)
    if kind == "outlier" and stats.rows is not None:
        rows = stats.rows if factor is None else stats.rows / factor
        part = outlier_rotation(rows, config, axis, factor, seed)
        notes["greedy_steps"] = [len(moves) for moves in part.moves or ()]
        return part, notes
    return Rotate(count, axis, factor, order, seed=seed, signed=True), notes


def _kind(info: LayerInfo, config: LrqDitConfig, stats: InputStats) -> str:
    if config.rotation == "none" or not can_rotate(info):
        return "none"
    return kind_of(stats.j, info.shape[1], config)


def _axis(info: LayerInfo) -> int:
    return -1 if info.kind == "Linear" else 1
