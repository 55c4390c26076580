"""What the cores of all methods do alike: walk the plan, round to nearest, say what inputs cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS
from quant.formats.granularity import input_layout, weight_layout
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Schedule
from quant.layers.encoded import EncodedWeight, LayerResult, param_bytes
from quant.plans.plan import LayerPlan, Plan
from quant.registry import Context, LayerFormat, settings_of

STATIC = Schedule(kind="static")


@dataclass(frozen=True)
class Work:
    """One planned layer: its line, its module, its config."""

    line: LayerPlan
    module: nn.Module
    config: Any

    @property
    def weight(self) -> Tensor:
        """Weight to quantize."""
        return self.module.get_parameter("weight").detach()

    @property
    def format(self) -> Quantizer:
        """Format of the weight."""
        assert self.line.weight is not None  # planned layers have one
        return self.line.weight

    def encoded(self, weight: Tensor | None = None, params: Params | None = None) -> EncodedWeight:
        """Round a weight (the module's by default) to the nearest codes."""
        source = self.weight if weight is None else weight
        return EncodedWeight.from_weight(source, self.format, weight_layout(self.line.kind), params)

    def nearest(self) -> LayerResult:
        """Round the weight, with the planned input."""
        return LayerResult(self.encoded(), self.line.activation)


def each(model: nn.Module, plan: Plan, config: BaseModel, context: Context) -> Iterator[Work]:
    """Walk the planned layers with their own configs, and report progress."""
    modules = dict(model.named_modules())
    lines = plan.quantized
    for index, line in enumerate(lines):
        context.progress(index, len(lines), line.name)
        yield Work(line, modules[line.name], settings_of(type(config), config, line.settings))
    context.progress(len(lines), len(lines), "done")


def configs(plan: Plan, config: BaseModel) -> dict[str, Any]:
    """Config of each planned layer."""
    return {line.name: settings_of(type(config), config, line.settings) for line in plan.quantized}


def weight_only(role: str) -> LayerFormat:
    """8-bit weights by output channel and float inputs, for a role that has a reason for it."""
    return LayerFormat(
        int_quantizer(8, "channel", schedule=STATIC), None, reason="weight only: " + REASONS[role]
    )


def free_input(layer: LayerInfo, bits: int) -> Quantizer:
    """Dynamic scale per token for linears, per pixel for 1x1 convolutions, per image for larger kernels.

    All of them are free in a matrix product.
    """
    free = layer.kind == "Linear" or layer.kernel_size == 1
    return int_quantizer(bits, "token" if free else "sample")


def one_input(kind: str, channels: int) -> tuple[int, ...]:
    """Shape of the smallest input of a layer: what parameters of static inputs are shaped by."""
    return (1, channels, 1, 1) if kind == "Conv2d" else (1, channels)


def input_bytes(layer: LayerInfo, activation: Quantizer) -> int:
    """Bytes of the stored parameters of a static input."""
    shape = one_input(layer.kind, layer.shape[1] * layer.groups)
    return sum(param_bytes(activation.blank_params(shape, input_layout(layer.kind))).values())
