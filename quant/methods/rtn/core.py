"""Round to nearest: formats by layer type, then one pass over the weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.floats import FloatGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.methods.plumbing import STATIC, each, free_input, weight_only
from quant.methods.rtn.config import FLOATS, RtnConfig
from quant.observers.ranges import MinMax, MseSearch
from quant.plans.plan import Plan
from quant.registry import Context, LayerFormat, Outcome


def formats(layer: LayerInfo, config: RtnConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    role = role_of(layer.name)
    if role in config.skip or (role == "modulation" and config.modulation == "skip"):
        return REASONS[role]
    if role == "modulation":
        return weight_only(role)
    weight, note = _weight(layer, config)
    return LayerFormat(weight, _activation(layer, config), reason=note)


def _weight(layer: LayerInfo, config: RtnConfig) -> tuple[Quantizer, str | None]:
    observer = MseSearch() if config.weight_range == "mse" else MinMax()
    options: dict[str, Any] = {"observer": observer, "schedule": STATIC}
    shared: tuple[Any, ...] = ("channel",)
    reason = None
    if config.weight_group is not None and layer.shape[1] < config.weight_group:
        reason = f"one scale an output channel: {layer.shape[1]} input channels are less than a group"
    elif config.weight_group is not None:
        shared, rest = ("group", config.weight_group), layer.shape[1] % config.weight_group
        reason = f"last group has {rest} of {config.weight_group} channels" if rest else None
    quantizer = int_quantizer(config.weight_bits, *shared, **options)
    if config.weight_format == "float":
        exponent, mantissa = FLOATS[config.weight_bits]
        quantizer = quantizer.model_copy(update={"grid": FloatGrid(exponent=exponent, mantissa=mantissa)})
    return quantizer, reason


def _activation(layer: LayerInfo, config: RtnConfig) -> Quantizer | None:
    if config.activation_bits is None:
        return None
    if config.activation_group is not None:
        return int_quantizer(config.activation_bits, "group", config.activation_group)
    return free_input(layer, config.activation_bits)


def core(model: nn.Module, plan: Plan, config: RtnConfig, context: Context) -> Outcome:
    """Encode every planned weight by rounding it to the nearest code."""
    return Outcome({work.line.name: work.nearest() for work in each(model, plan, config, context)})
