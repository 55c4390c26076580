"""A weight as codes and parameters, what a method hands back for one layer, and what one shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from quant.denoisers.inventory import tensor_bytes
from quant.formats.granularity import Layout
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer
from quant.layers.lowbit import packing

CATEGORIES = {
    "scale": "scales", "scale_fine": "scales", "scale_negative": "scales", "bases": "scales",
    "step": "scales", "step_negative": "scales", "offset": "scales",
    "zero_point": "zero_points",
}  # fmt: skip

_Sizes = dict[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass
class EncodedWeight:
    """Packed codes, parameters, and how to read them.

    Attributes
    ----------
    quantizer : Quantizer
    layout : "linear_weight" or "conv_weight"
    shape : tuple of int
        Of the weight, (out, in, ...).
    packed : uint8 tensor of shape (out, bytes a row)
        Row-major bit stream (`kernels.packing`) of the codes of one output channel.
    params : dict of str to tensor
        In the shape of the granularity's view with shared axes of size 1.
    """

    quantizer: Quantizer
    layout: Layout
    shape: tuple[int, ...]
    packed: Tensor
    params: Params

    @classmethod
    def from_weight(
        cls, weight: Tensor, quantizer: Quantizer, layout: Layout, params: Params | None = None
    ) -> EncodedWeight:
        """Encode by rounding to nearest; `params` are found from the weight unless given."""
        codes, params = quantizer.encode(weight.detach(), layout, params)
        return cls.from_codes(codes, quantizer, layout, params)

    @classmethod
    def from_codes(cls, codes: Tensor, quantizer: Quantizer, layout: Layout, params: Params) -> EncodedWeight:
        """Take codes that a method chose itself (learned rounding, error feedback)."""
        packed = packing.pack(codes.flatten(1), quantizer.bits)
        return cls(quantizer, layout, tuple(codes.shape), packed, dict(params))

    def codes(self) -> Tensor:
        """Integer codes in the shape of the weight."""
        n = 1
        for size in self.shape[1:]:
            n *= size
        flat = packing.unpack(self.packed, self.quantizer.bits, n, self.quantizer.grid.signed_codes)
        return flat.reshape(self.shape)

    def decode(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Decode the weight."""
        return self.quantizer.decode(self.codes(), self.params, self.layout, dtype)

    def fault(self) -> str | None:
        """Say what about codes and parameters cannot be of this format and shape; None if nothing."""
        quantizer, count = self.quantizer, 1
        for size in self.shape[1:]:
            count *= size
        try:
            expected = (self.shape[0], packing.packed_bytes(count, quantizer.bits))
            blank = quantizer.blank_params(self.shape, self.layout)
        except (ArithmeticError, ValueError, RuntimeError, TypeError):
            return f"its weight format {quantizer.label} cannot be computed"
        if tuple(self.packed.shape) != expected or self.packed.dtype != torch.uint8:
            return f"its codes are {self.packed.dtype} {tuple(self.packed.shape)}, expected uint8 {expected}"
        found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in self.params.items()}
        wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in blank.items()}
        if found != wanted:
            return f"its parameters do not fit its format {quantizer.label}: {_first(found, wanted)}"
        fault = quantizer.grid.fault(self.params)
        return f"its weight has {fault}" if fault else None

    def bytes(self) -> dict[str, int]:
        """Bytes on disk by category: codes, scales, zero_points."""
        return {"codes": tensor_bytes(self.packed), **param_bytes(self.params)}


def _first(found: _Sizes, wanted: _Sizes) -> str:
    name = next(n for n in sorted({*found, *wanted}) if found.get(n) != wanted.get(n))
    shown = [f"{size[1]} {size[0]}" if size else "nothing" for size in (found.get(name), wanted.get(name))]
    return f"{name!r} is {shown[0]}, expected {shown[1]}"


def param_bytes(params: Params) -> dict[str, int]:
    """Bytes of parameters by category."""
    out: dict[str, int] = {}
    for name, tensor in params.items():
        category = CATEGORIES.get(name, "other")
        out[category] = out.get(category, 0) + tensor_bytes(tensor)
    return out


def planned_bytes(quantizer: Quantizer, shape: tuple[int, ...], layout: Layout) -> dict[str, int]:
    """Bytes that an `EncodedWeight` will take, without touching a weight."""
    row = 1
    for size in shape[1:]:
        row *= size
    codes = shape[0] * packing.packed_bytes(row, quantizer.bits)
    return {"codes": codes, **param_bytes(quantizer.blank_params(shape, layout))}


@dataclass
class LayerResult:
    """What a method's handler returns for one layer; `quantize_` installs it.

    Attributes
    ----------
    weight : EncodedWeight
        Of the weight *after* `transform` and without `branch`.
    activation : Quantizer, optional
        For the layer's input after `transform`; None leaves it in floating point.
    activation_params : dict of str to tensor
        Calibrated parameters: for a static schedule as `Quantizer.fake` takes them, for a per-timestep one
        with a leading axis of rows; empty for dynamic.
    timesteps : tensor of shape (rows,), optional
        Timestep value of each row.
    transform : module, optional
        Applied to the layer's input before quantization (smoothing, rotation); see `attachments`.
    branch : module, optional
        Added to the output, fed with the layer's untouched input (low rank, LoRA).
    bias : tensor of shape (out,), optional
        Replaces the bias, for methods that fold a correction into it.
    notes : dict
        Anything the ledger should carry, JSON types only (chosen alpha, iterations, ...).
    sqnr_db : float, optional
        Of the effective weight, if the method measured it where the layer was at work (a GPU); else it is
        measured where the layer lives.
    """

    weight: EncodedWeight
    activation: Quantizer | None = None
    activation_params: Params = field(default_factory=dict)
    timesteps: Tensor | None = None
    transform: nn.Module | None = None
    branch: nn.Module | None = None
    bias: Tensor | None = None
    notes: dict = field(default_factory=dict)
    sqnr_db: float | None = None


class Encoded(Protocol):
    """What those who run or read a `quant.layers.quantized.QuantLayer` see of it."""

    weight_quantizer: Quantizer
    weight_layout: Layout
    weight_shape: tuple[int, ...]
    weight_params: tuple[str, ...]
    codes: Any
    bias: Any
    transform: nn.Module | None
    branch: nn.Module | None
    input_quantizer: Any
    native: Any
    producer: Any
    native_key: tuple[Any, ...]

    def encoded(self) -> EncodedWeight:
        """Codes and parameters of the weight."""

    def current(self) -> Tensor:
        """Get the decoded weight."""

    def state_dict(self, *, keep_vars: bool = False) -> dict[str, Any]:
        """Tensors by name."""

    def float_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Do the layer's own arithmetic on given values."""
