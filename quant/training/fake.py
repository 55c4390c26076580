"""Layers in training: they stand for a Linear or Conv2d and compute what the exported layer will.

A layer in training has a weight side and an input side. Each knows its values now, with gradients, and what
it becomes: codes and scales. The full-precision layer stays at hand, so that one model in memory is teacher
(`teaching`) and student in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.grids import Params
from quant.formats.schedule import Clock
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.plans.plan import LayerPlan
from quant.training.blocks import swapped


class WeightSide(nn.Module):
    """A weight in training."""

    def weight(self) -> Tensor:
        """Weight of the layer now, float32, with gradients."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def encoded(self) -> EncodedWeight:
        """Codes and parameters that `weight` stands for, exactly."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def inside(self, x: Tensor) -> Tensor:
        """Input before it is rounded: what a transform makes of it."""
        return x

    def transform(self) -> nn.Module | None:
        """Build the transform of the exported layer."""
        return None

    def beside(self, x: Tensor) -> Tensor | None:
        """Output of a branch that stays beside the codes, fed with the unrounded input."""
        return None

    def branch(self) -> nn.Module | None:
        """Build the branch of the exported layer."""
        return None


class InputSide(nn.Module):
    """An input in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Round `x` as the exported layer will, with gradients."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def params(self) -> tuple[Params, Tensor | None]:
        """Parameters to store, and the timesteps of their rows; nothing for dynamic ranges."""
        return {}, None


class FakeLayer(nn.Module):
    """Stands for a Linear or Conv2d in training.

    Parameters
    ----------
    layer : Linear or Conv2d
        Full precision; as it was afterwards.
    line : LayerPlan
    weight : WeightSide
    inputs : InputSide, optional
        None leaves inputs in floating point.
    train_bias : bool
        Learn the bias too.
    """

    def __init__(
        self, layer: nn.Module, line: LayerPlan, weight: WeightSide, inputs: InputSide | None = None,
        train_bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        # first of the children: who asks the model for its type is answered by the layer's own weight
        self.layer, self.line, self.active = layer, line, True
        self.side, self.inputs = weight, inputs
        self.held: Tensor | None = None
        self.own = nn.ParameterDict()
        bias: Any = getattr(layer, "bias", None)
        if train_bias and bias is not None:
            self.own["bias"] = nn.Parameter(wide(bias.detach()).clone())

    def rounded(self) -> Tensor:
        """Round the weight, in float32 also where forwards are in bfloat16: its codes are the stored ones."""
        layer: Any = self.layer
        with torch.autocast(layer.weight.device.type, enabled=False):
            return self.side.weight()

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer as student, or the full-precision layer as teacher."""
        layer: Any = self.layer
        if not self.active:
            return layer(x)
        beside, x = self.side.beside(x), self.side.inside(x)
        if self.inputs is not None:
            x = self.inputs(x)
        weight = (self.rounded() if self.held is None else self.held).to(x.dtype)
        bias = self.own["bias"].to(x.dtype) if "bias" in self.own else layer.bias
        if isinstance(layer, nn.Linear):
            out = nn.functional.linear(x, weight, bias)
        else:
            out = layer._conv_forward(x, weight, bias)
        return out if beside is None else out + beside

    @torch.no_grad()
    def result(self, notes: dict[str, Any] | None = None) -> LayerResult:
        """Codes, scales and bias for good."""
        params, timesteps = ({}, None) if self.inputs is None else self.inputs.params()
        layer: Any = self.layer
        bias = self.own["bias"].detach().to(layer.bias.dtype) if "bias" in self.own else None
        return LayerResult(
            self.side.encoded(), self.line.activation, params, timesteps, transform=self.side.transform(),
            branch=self.side.branch(), bias=bias, notes=notes or {},
        )  # fmt: skip


def wide(x: Tensor) -> Tensor:
    """Arithmetic and parameters are in float32 at least, whatever the model is in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def in_training(model: nn.Module, layers: dict[str, FakeLayer], clock: Clock | None = None) -> Iterator[None]:
    """Put layers in training into a model for a while; nothing else of it collects gradients."""
    handle = None if clock is None else model.register_forward_pre_hook(clock.hook, with_kwargs=True)
    try:
        with frozen(model), swapped(model, dict(layers)):
            yield
    finally:
        if handle is not None:
            handle.remove()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let a model's parameters collect no gradients for a while."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, value in before.items():
            parameter.requires_grad_(value)


@contextmanager
def teaching(layers: dict[str, FakeLayer]) -> Iterator[None]:
    """Run as the full-precision teacher, without gradients."""
    before = {name: layer.active for name, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.active = False
        with torch.no_grad():
            yield
    finally:
        for name, layer in layers.items():
            layer.active = before[name]


@contextmanager
def holding(layers: dict[str, FakeLayer]) -> Iterator[None]:
    """Round weights once for all forwards of a block; their gradients add up."""
    try:
        for layer in layers.values():
            layer.held = layer.rounded()
        yield
    finally:
        for layer in layers.values():
            layer.held = None


def layers_in_training(model: nn.Module) -> list[str]:
    """Names of layers in training; a model that has any is not ready to be exported."""
    return [name for name, module in model.named_modules() if isinstance(module, FakeLayer)]
