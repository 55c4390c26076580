"""Run a quantized layer on its codes through `kernels`, and name the path that ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.layers.lowbit import int8_linear, quantize_rows, w4_linear

if TYPE_CHECKING:
    from quant.layers.quantized import QuantLayer


def kernel_op(kind: str, weight: Quantizer, activation: Quantizer | None) -> str:
    """Which operation of `kernels` fits a layer's formats; "decode" where none does.

    The integer GEMM needs symmetric integers on both sides with scales on the row and the column axis only.
    Group weights of 4 bits are expanded group by group. Everything else is decoded and multiplied in
    floating point.
    """
    if kind != "Linear" or not _plain_int(weight):
        return "decode"
    shared = weight.granularity.kind
    if activation is not None and _plain_int(activation):
        dynamic_rows = activation.granularity.kind == "token" and activation.schedule.kind == "dynamic"
        if dynamic_rows and shared == "channel":
            return "int8_linear"
    if shared == "group" and weight.bits == 4 and (activation is None or _plain_int(activation)):
        return "w4_linear"
    return "decode"


def _plain_int(quantizer: Quantizer) -> bool:
    grid = quantizer.grid
    return isinstance(grid, IntGrid) and grid.mode == "symmetric" and quantizer.fine is None


def run_codes(layer: QuantLayer, x: Tensor) -> tuple[Tensor, str]:
    """Output of `layer` for a transformed input, computed from codes.

    Returns
    -------
    out : Tensor
    path : str
        Operation and implementation that ran, as ``int8_linear: reference``.
    """
    quantizer = layer.input_quantizer
    activation = None if quantizer is None else quantizer.quantizer
    kind = "Linear" if layer.weight_layout == "linear_weight" else "Conv2d"
    op = kernel_op(kind, layer.weight_quantizer, activation)
    encoded = layer.encoded()
    if op == "int8_linear" and activation is not None and isinstance(activation.grid, IntGrid):
        rows = quantize_rows.quantize_rows(x.flatten(0, -2), activation.bits)
        scale = encoded.params["scale"].flatten()
        out = int8_linear.int8_linear(rows.codes, rows.scale, encoded.codes(), scale, layer.bias, x.dtype)
        return out.value.reshape(*x.shape[:-1], -1), f"{op}: {out.path}"
    if op == "w4_linear":
        hidden = x if quantizer is None else quantizer(x)
        scale, size = encoded.params["scale"].squeeze(-1), encoded.quantizer.granularity.group_size or 1
        out = w4_linear.w4_linear(hidden.flatten(0, -2), encoded.packed, scale, size, layer.bias)
        return out.value.reshape(*x.shape[:-1], -1), f"{op}: {out.path}"
    if quantizer is not None:
        codes, params = quantizer.encode(x)
        x = quantizer.quantizer.decode(codes, params, quantizer.layout, x.dtype)
    return layer.float_op(x, encoded.decode(x.dtype), layer.bias), "decode: reference"
