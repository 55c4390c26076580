"""DGQ: calibrate input ranges along both axes at every timestep, cluster one of them, round the weights."""

from __future__ import annotations

from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.granularity import Granularity, input_layout, weight_layout
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Schedule
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.methods.dgq.attention import attention_formats, attention_settings, measured
from quant.methods.dgq.config import DgqConfig
from quant.methods.dgq.ranges import AxisRanges, table, table_bytes
from quant.observers.ranges import MinMax, MseSearch
from quant.plans.plan import Plan
from quant.recordings.rows import watch
from quant.registry import Context, LayerFormat

_STATIC = Schedule(kind="static")


def formats(layer: LayerInfo, config: DgqConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if role in config.skip:
        return REASONS[role]
    if role == "modulation" and config.modulation == "weight-only":
        weight = int_quantizer(8, "channel", observer=MinMax(), schedule=_STATIC)
        return LayerFormat(weight, None, reason="weight only: " + REASONS[role])
    observer = MseSearch(norm=2.4) if config.weight_range == "mse" else MinMax()
    weight = Quantizer(
        grid=IntGrid(bits=config.weight_bits, mode="asymmetric"),
        granularity=Granularity(kind="channel"),
        schedule=_STATIC,
        observer=observer,
    )
    activation = Quantizer(
        grid=IntGrid(bits=config.activation_bits, mode="asymmetric"),
        granularity=Granularity(kind="cluster"),
        schedule=Schedule(kind="timestep", match=config.match),
    )
    if layer.seen is None:
        reason = (
            "input ranges come on top: their size is not known, the model does not run on the meta device"
        )
        return LayerFormat(weight, activation, reason=reason)
    channels = layer.shape[1] * layer.groups
    size = table_bytes(channels, layer.seen, activation, config.groups, config.axis)
    steps = f"{layer.seen.timesteps} timesteps"
    if layer.seen.assumed:
        steps += " (assumed: there is no recording to count)"
    return LayerFormat(weight, activation, side_bytes=size, reason=f"input ranges for {steps}")


def handler(model: nn.Module, plan: Plan, config: DgqConfig, context: Context) -> dict[str, LayerResult]:
    """Watch inputs over all timesteps, then go through the layers."""
    grouped = [line for line in plan.quantized if line.activation is not None]
    ranges = {line.name: AxisRanges(input_layout(line.kind)) for line in grouped}
    attention = attention_settings(model, plan)
    with measured(model, attention) as scores:
        watch(
            model, context.trajectories, ranges, lambda name, x, t: ranges[name].update(x, t),
            samples=config.samples,
        )  # fmt: skip
    context.attention = attention_formats(scores, attention)
    modules, results = dict(model.named_modules()), {}
    for index, line in enumerate(plan.quantized):
        context.progress(index, len(plan.quantized), line.name)
        if line.weight is None:
            continue
        weight = getattr(modules[line.name], "weight")  # noqa: B009 - a Tensor attribute mypy cannot see
        encoded = EncodedWeight.from_weight(weight, line.weight, weight_layout(line.kind))
        if line.activation is None:
            results[line.name] = LayerResult(encoded)
            continue
        own = DgqConfig.model_validate({**plan.config, **line.settings})
        stored, timesteps, notes = table(
            ranges.pop(line.name),
            line.activation,
            own.groups,
            own.axis,
            context.seed,
            line.shape[1] * getattr(modules[line.name], "groups", 1),
        )
        results[line.name] = LayerResult(encoded, line.activation, stored, timesteps, notes=notes)
    context.progress(len(results), len(plan.quantized), "done")
    return results
