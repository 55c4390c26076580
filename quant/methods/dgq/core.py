"""DGQ: calibrate input ranges along both axes at every timestep, cluster one of them, round the weights."""

from __future__ import annotations

from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.formats.schedule import Schedule
from quant.layers.encoded import LayerResult
from quant.methods.dgq.attention import attention_formats, attention_settings
from quant.methods.dgq.config import DgqConfig
from quant.methods.dgq.first_pass import first_pass
from quant.methods.dgq.ranges import table, table_bytes
from quant.methods.plumbing import STATIC, each, weight_only
from quant.observers.ranges import MinMax, MseSearch
from quant.plans.plan import Plan
from quant.registry import Context, LayerFormat, Outcome
from quant.training.running.finished import keep, kept


def formats(layer: LayerInfo, config: DgqConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if role in config.skip:
        return REASONS[role]
    if role == "modulation" and config.modulation == "weight-only":
        return weight_only(role)
    observer = MseSearch(norm=2.4) if config.weight_range == "mse" else MinMax()
    weight = Quantizer(
        grid=IntGrid(bits=config.weight_bits, mode="asymmetric"),
        granularity=Granularity(kind="channel"),
        schedule=STATIC,
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


def core(model: nn.Module, plan: Plan, config: DgqConfig, context: Context) -> Outcome:
    """Watch inputs over all timesteps, then go through the layers; both are kept in the context's state."""
    grouped = [line for line in plan.quantized if line.activation is not None]
    attention = attention_settings(model, plan)
    ranges, scores = first_pass(model, grouped, list(attention), config, context)
    results: dict[str, LayerResult] = {}
    for work in each(model, plan, config, context):
        name = work.line.name
        found = kept(context.state, [work.line], work.weight.device)
        if found is not None:
            results |= found
            continue
        results[name] = result = work.nearest()
        if work.line.activation is not None:
            channels = work.line.shape[1] * getattr(work.module, "groups", 1)
            result.activation_params, result.timesteps, result.notes = table(
                ranges.pop(name), work.line.activation, work.config.groups, work.config.axis, context.seed,
                channels,
            )  # fmt: skip
        keep(context.state, {name: result})
    return Outcome(results, attention_formats(scores, attention))
