"""Run a quantized layer on its codes through `kernels`, and name the path that ran.

Where a kernel can run (`quant.layers.native`) the whole layer is a few launches. Elsewhere codes are what the
layer's own quantizer makes, and the product is that of the kernels' reference: exact in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer
from quant.formats.scales import fine_values
from quant.layers.encoded import Encoded
from quant.layers.lowbit import gemm
from quant.layers.native.fits import PRODUCTS, fit
from quant.layers.native.run import run_native


def run_codes(layer: Encoded, x: Tensor) -> tuple[Tensor, str]:
    """Output of `layer` computed from codes, transform and branch included.

    Returns
    -------
    out : Tensor
    path : str
        Operation and implementation that ran, as ``int8: reference``.
    """
    native = run_native(layer, x)
    if native is not None:
        return native
    if layer.producer is not None:
        x = layer.producer.plain(x)
    hidden = x if layer.transform is None else layer.transform(x)
    out, path = _from_codes(layer, hidden)
    return out if layer.branch is None else out + layer.branch(x), path


def _from_codes(layer: Encoded, x: Tensor) -> tuple[Tensor, str]:
    quantizer, encoded = layer.input_quantizer, layer.encoded()
    kind = "Linear" if layer.weight_layout == "linear_weight" else "Conv2d"
    activation = None if quantizer is None else quantizer.quantizer
    op = fit(kind, layer.weight_quantizer, activation, layer.transform, layer.branch).op
    if quantizer is None:
        return layer.float_op(x, encoded.decode(x.dtype), layer.bias), "decode: reference"
    codes, params = quantizer.encode(x)
    if kind == "Linear" and op in PRODUCTS and x.numel():
        a, row = _operand(codes.flatten(0, -2), params, quantizer.quantizer)
        b, column = _operand(encoded.codes(), encoded.params, encoded.quantizer)
        out = gemm.gemm(a, row, b, column, layer.bias, dtype=x.dtype, path="reference")
        return out.value.reshape(*x.shape[:-1], -1), f"{op}: {out.path}"
    x = quantizer.quantizer.decode(codes, params, quantizer.layout, x.dtype)
    return layer.float_op(x, encoded.decode(x.dtype), layer.bias), "decode: reference"


def _operand(codes: Tensor, params: Params, quantizer: Quantizer) -> tuple[Tensor, Tensor]:
    """Codes times fine scales, exact in 8 bits, and the scale of each row."""
    scale = params["scale"].reshape(-1)
    wide = scale if scale.dtype == torch.float64 else scale.float()
    if "scale_fine" not in params:
        return codes.contiguous(), wide
    fine = params["scale_fine"].reshape(codes.shape[0], -1)
    values = fine_values(fine, torch.float32).repeat_interleave(quantizer.granularity.group_size or 1, 1)
    product = codes.float() * values[:, : codes.shape[1]]
    return product.to(torch.float8_e4m3fn if fine.dtype == torch.int8 else torch.int8), wide
