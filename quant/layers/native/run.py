"""Run a layer through the kernels: codes on both sides from end to end.

What a kernel takes is prepared once for each layer and again when a tensor it was made from changes. A layer
that no kernel fits says why; nothing falls back without that word in the path.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quant.layers.lowbit import conv2d, few_rows, lowrank_linear, operands, paths, quantize
from quant.layers.native.fits import GROUPS, SMALL_CODES, fit
from quant.modes import ordinary_mode

if TYPE_CHECKING:
    from quant.layers.quantized import QuantLayer

FEW = 64
"""Rows up to which a weight is decoded next to the product."""
PATH: paths.Path = "auto"
"""Implementation that native layers ask for; tests set it."""


def run_native(layer: QuantLayer, x: Tensor) -> tuple[Tensor, str] | None:
    """Output of a layer and the path, where a kernel fits and can run here; else None."""
    if x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return None
    quantizer = layer.input_quantizer
    activation = None if quantizer is None else quantizer.quantizer
    kind = "Linear" if layer.weight_layout == "linear_weight" else "Conv2d"
    op = fit(kind, layer.weight_quantizer, activation, layer.transform, layer.branch).op
    needs = paths.FLOAT8 if op == "W4A4 fp8" else (8, 0)
    if op == "decode" or paths.choose(PATH, x, needs) != "triton":
        return None
    if op == "W4A16":
        return _run_few(layer, x)
    if op == "conv int8":
        return _run_convolution(layer, x, 8 if activation is None else activation.bits)
    weight = _prepared(layer, x)
    out = lowrank_linear.lowrank_linear(x, replace(weight, bias=layer.bias), PATH)
    return out.value, f"{op}: {out.path}"


def _run_few(layer: QuantLayer, x: Tensor) -> tuple[Tensor, str] | None:
    rows = x.numel() // x.shape[-1]
    if rows > FEW or x.dtype == torch.float32:
        return None
    hidden = x if layer.transform is None else layer.transform(x)
    encoded = layer.encoded()
    scale, column = _group_scales(encoded.params)
    flat = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    size = encoded.quantizer.granularity.group_size or 1
    out = few_rows.few_rows(flat, encoded.packed, scale, size, column, layer.bias, PATH)
    value = out.value.reshape(*x.shape[:-1], -1)
    return value if layer.branch is None else value + layer.branch(x), f"W4A16: {out.path}"


def _group_scales(params: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Scales of groups, (N, G), and what they are multiplied by, (N,)."""
    if "scale_fine" in params:
        return params["scale_fine"].squeeze(-1).contiguous(), params["scale"].reshape(-1).float()
    return params["scale"].squeeze(-1).contiguous(), None


def _run_convolution(layer: QuantLayer, x: Tensor, bits: int) -> tuple[Tensor, str] | None:
    module: Any = layer
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    images = x.permute(0, 2, 3, 1).contiguous()
    b, h, w, c = images.shape
    top = 2 ** (bits - 1) - 1
    unit = x.abs().amax((1, 2, 3)).float() / torch.full((b,), top, device=x.device)
    unit = torch.where(unit < torch.finfo(torch.float32).tiny, torch.ones_like(unit), unit)
    before = quantize.Before(rows=h * w)
    rows = quantize.quantize(images.reshape(-1, c), "int_token", bits, path=PATH, before=before, scale=unit)
    codes = rows.codes[:, :c].reshape(b, h, w, c)
    kernel, column = _prepared(layer, x)
    out = conv2d.conv2d(
        codes.contiguous(), unit, kernel, column, layer.bias, module.stride, module.padding, module.dilation,
        x.dtype, PATH,
    )  # fmt: skip
    return out.value, f"conv int8: {out.path}"


def _prepared(layer: QuantLayer, x: Tensor) -> Any:
    """Make what the kernel takes of a layer, again when a tensor of it is another one or was written to."""
    sources = [*layer.state_dict(keep_vars=True).values()]
    key = (x.dtype, *((t.data_ptr(), None if t.is_inference() else t._version) for t in sources))
    held = layer.__dict__.get("_for_kernels")
    if held is None or held[0] != key:
        with ordinary_mode(), torch.no_grad():
            made = _kernel(layer) if layer.weight_layout != "linear_weight" else _weight(layer, x.dtype)
        held = layer.__dict__["_for_kernels"] = (key, made)
    return held[1]


def _kernel(layer: QuantLayer) -> tuple[Tensor, Tensor]:
    encoded = layer.encoded()
    return encoded.codes().permute(0, 2, 3, 1).contiguous(), encoded.params["scale"].reshape(-1).float()


def _weight(layer: QuantLayer, dtype: torch.dtype) -> lowrank_linear.LowRankWeight:
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
    operand = None
    packed = encoded.packed
    if encoded.quantizer.bits != SMALL_CODES:
        missing = operands.padded_columns(k) - k
        operand = nn.functional.pad(encoded.codes(), (0, missing)).contiguous()
    made = lowrank_linear.prepare(packed, plain, column, k, GROUPS[-1], 8, smooth, down, up, None, shift)
    return replace(made, bits=activation.bits, operand=operand)
