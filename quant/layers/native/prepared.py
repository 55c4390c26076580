"""A layer in the form that kernels take: tensors made once, and the calls on them.

Objects here hold tensors and plain numbers only and look nothing up, so that `torch.compile` and CUDA graphs
see a few launches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from quant.layers.encoded import Encoded
from quant.layers.lowbit import (
    conv2d,
    expand_half,
    few_rows,
    group_norm,
    lowrank_linear,
    operands,
    quantize,
)
from quant.layers.native import tables
from quant.layers.native.fits import GROUPS, PRODUCTS, SMALL_CODES, odd_convolution

FEW = 64
"""Rows up to which a weight is decoded next to the product."""
HALVES = (torch.bfloat16, torch.float16)
TYPES = (*HALVES, torch.float32)
WIDER = (torch.bfloat16, torch.float32)
"""Types of scales that hold smaller numbers than float16."""
TRITON: Any = "triton"


@dataclass(frozen=True)
class Product:
    """A linear of 8-bit operands, smoothing and branch included."""

    op: str
    weight: lowrank_linear.LowRankWeight

    def takes(self, x: Tensor) -> bool:
        """Whether `x` can go this way."""
        return x.dtype in TYPES

    def __call__(self, x: Tensor, producer: Any = None) -> Tensor:
        """Apply to (..., K), after what a `quant.layers.native.producers.Producer` does."""
        if producer is None:
            return lowrank_linear.lowrank_linear(x, self.weight, TRITON).value
        if not x.numel():
            return lowrank_linear.lowrank_linear(producer.plain(x), self.weight, TRITON).value
        return lowrank_linear.lowrank_linear(x, self.weight, TRITON, producer.before(x)).value

    def path(self, x: Tensor, producer: Any = None) -> str:
        """Say who does what for this input."""
        wide = x if producer is None or producer.kind != "geglu" else x[..., : self.weight.in_features]
        found = lowrank_linear.multiplied_by(wide, self.weight)
        return f"{self.op}: triton" + ("" if found == "triton" else ", product by torch")


@dataclass(frozen=True)
class WeightOnly:
    """A linear on 4-bit weights whose input stays as it is.

    For a few rows in 16 bit the weight is decoded next to the product, else in one launch before torch's own.
    """

    op: str
    packed: Tensor
    scale: Tensor
    group: int
    column: Tensor | None
    bias: Tensor | None
    transform: nn.Module | None
    branch: nn.Module | None

    def takes(self, x: Tensor) -> bool:
        """Whether `x` can go this way."""
        return x.dtype in TYPES

    def path(self, x: Tensor, producer: Any = None) -> str:
        """Say who does what for this input."""
        return f"{self.op}: triton" + ("" if _few(x) else ", product by torch")

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to (..., K)."""
        hidden = x if self.transform is None else self.transform(x)
        flat = hidden.reshape(-1, x.shape[-1])
        if _few(x):
            out = few_rows.few_rows(
                flat.contiguous(), self.packed, self.scale, self.group, self.column, self.bias, TRITON
            ).value
        else:
            weight = expand_half.expand_half(
                self.packed, self.scale, x.shape[-1], self.group, self.column, x.dtype, TRITON
            ).value
            out = nn.functional.linear(flat, weight, self.bias)
        out = out.reshape(*x.shape[:-1], self.packed.shape[0])
        return out if self.branch is None else out + self.branch(x)


def _few(x: Tensor) -> bool:
    return x.dtype in HALVES and x.numel() <= FEW * x.shape[-1]


@dataclass(frozen=True)
class Convolution:
    """A convolution of 8-bit codes, one input scale an image.

    `kernel` (N, KH, KW, C) may be the stored codes seen in that order: they are not held twice.
    """

    op: str
    kernel: Tensor
    column: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    bits: int

    def takes(self, x: Tensor) -> bool:
        """Whether `x` can go this way: a batch of images."""
        return x.dtype in TYPES and x.ndim == 4

    def path(self, x: Tensor, producer: Any = None) -> str:
        """Say who does what for this input."""
        return f"{self.op}: triton"

    def __call__(self, x: Tensor, producer: Any = None) -> Tensor:
        """Apply to (B, C, H, W), after what a `quant.layers.native.producers.Producer` does."""
        if producer is not None and not x.numel():
            x, producer = producer.plain(x), None
        images = x.permute(0, 2, 3, 1).contiguous()
        b, h, w, c = images.shape
        largest = 2 ** (self.bits - 1) - 1
        if producer is None:
            top = torch.full((b,), largest, device=x.device)
            # by pixels first: compiled, one reduction would be one program an image
            unit = images.abs().amax(-1).flatten(1).amax(-1).float() / top
            unit = torch.where(unit < torch.finfo(torch.float32).tiny, torch.ones_like(unit), unit)
            before = quantize.Before(rows=h * w)
        else:
            pixels = images.reshape(b, h * w, c)
            before = producer.before(pixels)
            unit = group_norm.sample_scale(pixels, before, largest, TRITON)
        rows = quantize.quantize(
            images.reshape(-1, c), "int_token", self.bits, path=TRITON, before=before, scale=unit
        )
        codes = rows.codes[:, :c].reshape(b, h, w, c).contiguous()
        return conv2d.conv2d(
            codes, unit, self.kernel.contiguous(), self.column, self.bias, self.stride, self.padding,
            self.dilation, x.dtype, TRITON,
        ).value  # fmt: skip


Native = Product | WeightOnly | Convolution | tables.Tables


def prepare(layer: Encoded, op: str, dtype: torch.dtype) -> Native | None:
    """Make what the kernel of `op` takes of a layer, for inputs of `dtype`; None if it cannot take it."""
    bias = None if layer.bias is None else layer.bias.detach()
    if op == "conv int8":
        return _convolution(layer, op, bias)
    if op == "W4A16":
        return _weight_only(layer, op, bias, dtype)
    if op not in PRODUCTS:
        return tables.prepare(layer, op, bias)
    return Product(op, replace(_weight(layer, dtype), bias=bias))


def _weight_only(layer: Encoded, op: str, bias: Tensor | None, dtype: torch.dtype) -> WeightOnly:
    encoded = layer.encoded()
    fine = encoded.params.get("scale_fine")
    scale = encoded.params["scale"] if fine is None else fine
    column = None
    if fine is not None:  # one a channel or, beside e4m3, one a tensor
        column = encoded.params["scale"].reshape(-1).float().expand(encoded.shape[0]).contiguous()
    if scale.dtype not in few_rows.SCALES:  # e4m3: all its numbers are float16 ones, too
        scale = scale.to(torch.float16 if scale.dtype == torch.float8_e4m3fn else torch.float32)
    scale = scale.squeeze(-1)
    if dtype == torch.float16 and column is None and scale.dtype in WIDER:
        scale, column = _near_one(scale)
    return WeightOnly(
        op, encoded.packed, scale.contiguous(), encoded.quantizer.granularity.group_size or 1,
        column, bias, layer.transform, layer.branch,
    )  # fmt: skip


def _near_one(scale: Tensor) -> tuple[Tensor, Tensor]:
    """Group scales (N, G) with the largest of a channel in [0.5, 1), and powers of two (N,) that undo it.

    Kernels multiply codes by scales in the type of the input: in float16 small ones would lose their bits.
    """
    _, exponent = torch.frexp(scale.float().amax(1))
    near = torch.ldexp(scale.float(), -exponent[:, None]).to(scale.dtype)
    return near, torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)


def _convolution(layer: Encoded, op: str, bias: Tensor | None) -> Convolution | None:
    module: Any = layer
    if odd_convolution(module):
        return None
    encoded, quantizer = layer.encoded(), layer.input_quantizer
    assert quantizer is not None  # as `fit` saw to
    if encoded.quantizer.bits == 8:
        kernel = encoded.packed.view(torch.int8).reshape(encoded.shape).permute(0, 2, 3, 1)
    else:
        kernel = encoded.codes().permute(0, 2, 3, 1).contiguous()
    return Convolution(
        op, kernel, encoded.params["scale"].reshape(-1).float(), bias, module.stride, module.padding,
        module.dilation, quantizer.quantizer.bits,
    )  # fmt: skip


def _weight(layer: Encoded, dtype: torch.dtype) -> lowrank_linear.LowRankWeight:
    """Tensors of a linear in the form `kernels.products.lowrank_linear` takes."""
    encoded, quantizer = layer.encoded(), layer.input_quantizer
    assert quantizer is not None  # as `fit` saw to
    transform: Any = layer.transform
    branch: Any = layer.branch
    down, up = (None, None) if branch is None else (branch.down.to(dtype), branch.up.to(dtype))
    smooth = None if transform is None else transform.factor
    shift = 0.0 if transform is None else transform.shift
    activation = quantizer.quantizer
    if "scale_fine" in encoded.params:
        fine, column = encoded.params["scale_fine"].squeeze(-1), encoded.params["scale"].reshape(-1)
        made = lowrank_linear.prepare(
            encoded.packed, fine, column, encoded.shape[1], encoded.quantizer.granularity.group_size or 1,
            activation.bits, smooth, down, up, None, shift,
        )  # fmt: skip
        return replace(made, unsigned=getattr(activation.grid, "mode", "") == "unsigned")
    column = encoded.params["scale"].reshape(-1).float().contiguous()
    n, k = encoded.shape
    plain = torch.ones(n, -(-k // GROUPS[-1]), dtype=torch.uint8, device=column.device)
    made = lowrank_linear.prepare(
        encoded.packed, plain, column, k, GROUPS[-1], 8, smooth, down, up, None, shift
    )
    operand = None if encoded.quantizer.bits == SMALL_CODES else _operand(encoded, k)
    return replace(made, bits=activation.bits, operand=operand)


def _operand(encoded: Any, k: int) -> Tensor:
    """Codes of other widths than 4, one a byte; 8-bit ones are what is stored."""
    missing = operands.padded_columns(k) - k
    if encoded.quantizer.bits == 8 and not missing:
        return encoded.packed.view(torch.int8)
    return nn.functional.pad(encoded.codes(), (0, missing)).contiguous()
