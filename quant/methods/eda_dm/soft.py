"""A layer in training: AdaRound's soft rounding of its weight, a learned scale for its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.granularity import weight_layout
from quant.formats.grids import IntGrid, Params
from quant.formats.rounding import as_storage, round_ste_
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.plans.plan import LayerPlan
from quant.training import rounding
from quant.training.fake import wide


class SoftLayer(nn.Module):
    """Stands for a Linear or Conv2d while its rounding is learned.

    ``W = s (clip(floor(w / s) + h(alpha) + z) - z)`` with ``h = clip(1.2 sigmoid(alpha) - 0.1, 0, 1)``; h
    starts as the fraction of w / s: the soft weight is the clipped weight.

    Parameters
    ----------
    layer : Linear or Conv2d
    line : LayerPlan
        Formats; weights by output channel, inputs static.
    inputs : dict of str to tensor
        Scale and zero point of the input, to start from; empty for float inputs.
    drop : float
        Share of input values that pass in full precision (QDrop).
    generator : torch.Generator
        Of the drop masks.
    """

    def __init__(
        self, layer: nn.Module, line: LayerPlan, inputs: Params, drop: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        if line.weight is None or not isinstance(line.weight.grid, IntGrid):
            raise TypeError(f"{line.name!r} has no integer format")
        self.layer, self.line, self.inputs = (layer,), line, inputs  # a tuple: not a child, not trained
        self.drop, self.generator = drop, generator
        weight: Any = layer.weight
        # in bfloat16 w / s has 8 bits: codes of 8-bit weights would be off by several
        self.source = wide(weight.detach())
        self.params = line.weight.params(self.source, weight_layout(line.kind))
        scale = self.params["scale"].to(self.source.dtype)
        self.base = torch.floor(self.source / scale)
        fraction = (self.source / scale - self.base).clamp(0, 1)
        self.alpha = nn.Parameter(rounding.start(fraction))
        self.log_scale = nn.Parameter(torch.zeros((), dtype=self.source.dtype, device=self.source.device))

    def soft(self) -> Tensor:
        """h, the part of a step that is added to the floor."""
        return rounding.soft(self.alpha)

    def _steps(self, h: Tensor) -> Tensor:
        grid: Any = self.line.weight.grid if self.line.weight else None
        qmin, qmax = grid.code_range
        zero = self.params["zero_point"].to(h.dtype) if "zero_point" in self.params else 0.0
        return (self.base + h + zero).clamp(qmin, qmax) - zero

    def weight(self) -> Tensor:
        """Weight with soft rounding."""
        return self._steps(self.soft()) * self.params["scale"].to(self.source.dtype)

    def input(self, x: Tensor) -> Tensor:
        """Fake-quantized input with a learned scale; some of it passes untouched."""
        if not self.inputs or self.line.activation is None:
            return x
        grid: Any = self.line.activation.grid
        qmin, qmax = grid.code_range
        exact = wide(x)
        scale = self.inputs["scale"].to(exact.dtype) * self.log_scale.exp()
        zero = self.inputs["zero_point"].to(exact.dtype)
        rounded = (((round_ste_(exact / scale) + zero).clamp(qmin, qmax) - zero) * scale).to(x.dtype)
        if not self.drop:
            return rounded
        keep = torch.rand(x.shape, generator=self.generator, device=self.generator.device).to(x.device)
        return torch.where(keep < self.drop, x, rounded)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer on soft values."""
        layer: Any = self.layer[0]
        x = self.input(x)
        weight = self.weight().to(x.dtype)
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(x, weight, layer.bias)
        return layer._conv_forward(x, weight, layer.bias)

    @torch.no_grad()
    def result(self, notes: dict[str, Any]) -> LayerResult:
        """Hard codes and final scales."""
        if self.line.weight is None:
            raise RuntimeError("a layer in training always has a format")
        hard = rounding.hard(self.alpha)
        zero = self.params["zero_point"].to(hard.dtype) if "zero_point" in self.params else 0.0
        grid: Any = self.line.weight.grid
        codes = (self._steps(hard) + zero).to(torch.int8 if grid.signed_codes else torch.uint8)
        encoded = EncodedWeight.from_codes(
            codes, self.line.weight, weight_layout(self.line.kind), self.params
        )
        inputs = dict(self.inputs)
        if inputs:
            factor = self.log_scale.exp().float()
            inputs["scale"] = as_storage(inputs["scale"].float() * factor, False, torch.float32)
        return LayerResult(encoded, self.line.activation, inputs, notes=notes)
