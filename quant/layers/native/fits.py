"""Which kernel fits a layer's formats, or why none does."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.layers.attachments import LowRank, Smooth
from quant.layers.native import tables
from quant.observers.ranges import MinMax

PRODUCTS = ("int8", "W4A4 int8", "W4A4 fp8", "W4A8 int8")
"""Products of 8-bit operands."""
GROUPS = (32, 64, 128)
SMALL_CODES = 4


class Fit(NamedTuple):
    """A kernel, or why there is none."""

    op: str
    why: str = ""

    @property
    def text(self) -> str:
        """For ledgers: ``W4A4 fp8`` or ``decode (the input is not quantized)``."""
        return f"{self.op} ({self.why})" if self.why else self.op


def fit(
    kind: str, weight: Quantizer, activation: Quantizer | None, transform: Any = None, branch: Any = None
) -> Fit:
    """Choose an operation of `kernels` for a layer's formats; "decode" where none fits.

    Parameters
    ----------
    kind : str
        "Linear" or "Conv2d".
    weight, activation : Quantizer
    transform, branch : modules, optional
        What the layer does before and beside its product.
    """
    found = _fit_codes(kind, weight, activation, transform, branch)
    if found.op == "decode" and kind != "Conv2d" and weight.granularity.kind != "group":
        why = tables.obstacle(weight, activation)
        found = Fit("decode", why) if why or activation is None else Fit(tables.op_of(weight, activation))
    if found.op == "decode" or activation is None or activation.schedule.kind != "dynamic":
        return found
    why = _odd_scales(activation)
    return Fit("decode", why) if why else found


def fit_of(
    module: Any, weight: Quantizer, activation: Quantizer | None, transform: Any = None, branch: Any = None
) -> Fit:
    """Choose an operation for a Linear or Conv2d, quantized or not yet; see `fit`."""
    kind = "Conv2d" if isinstance(module, nn.Conv2d) else "Linear"
    found = fit(kind, weight, activation, transform, branch)
    why = odd_convolution(module) if kind == "Conv2d" and found.op != "decode" else ""
    return Fit("decode", why) if why else found


def odd_convolution(module: Any) -> str:
    """Why no kernel convolves as this module does; empty if one does."""
    if module.groups != 1:
        return f"a convolution in {module.groups} groups"
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        how = module.padding_mode if module.padding_mode != "zeros" else repr(module.padding)
        return f"a convolution with padding {how}"
    return ""


def _odd_scales(activation: Quantizer) -> str:
    """Why scales found at run time are others than a kernel finds; empty if they are the same."""
    if not isinstance(activation.observer, MinMax):
        return f"input ranges by {activation.observer.kind}; kernels take the largest value"
    if activation.fine is None and (activation.scale, activation.scale_dtype) != ("real", "float32"):
        return f"input scales {activation.scale} in {activation.scale_dtype}; kernels find float32 ones"
    return ""


def _fit_codes(
    kind: str, weight: Quantizer, activation: Quantizer | None, transform: Any, branch: Any
) -> Fit:
    """Operations on symmetric integers, everything around the product in the same launches."""
    if not isinstance(weight.grid, IntGrid) or weight.grid.mode != "symmetric":
        return Fit("decode", f"no kernel for {weight.label} weights")
    if kind == "Conv2d":
        return _fit_convolution(weight, activation, transform, branch)
    four = weight.bits == SMALL_CODES and weight.granularity.kind == "group"
    if four and weight.granularity.group_size not in GROUPS:
        return Fit("decode", f"groups of {weight.granularity.group_size}; kernels take 32, 64, 128")
    if activation is None:
        return Fit("W4A16") if four else Fit("decode", "the input is not quantized")
    if why := _odd_neighbours(transform, branch):
        return Fit("decode", why)
    if not isinstance(activation.grid, IntGrid) or activation.schedule.kind != "dynamic":
        return Fit("decode", f"no kernel for {activation.schedule.kind} {activation.label} inputs")
    return _fit_product(weight, activation, four)


def _odd_neighbours(transform: Any, branch: Any) -> str:
    if transform is not None and type(transform) is not Smooth:
        return f"{type(transform).__name__.lower()} before it"
    if branch is not None and type(branch) is not LowRank:
        return f"{type(branch).__name__.lower()} beside it"
    return ""


def _fit_product(weight: Quantizer, activation: Quantizer, four: bool) -> Fit:
    symmetric = isinstance(activation.grid, IntGrid) and activation.grid.mode == "symmetric"
    by_token = activation.granularity.kind == "token" and symmetric and activation.scale == "real"
    if weight.granularity.kind == "channel" and weight.scale == "real" and by_token:
        return Fit("int8")
    if not four or weight.fine not in ("pow2", "int"):
        return Fit(
            "decode",
            "group scales on the reduction axis; scales=pow2 or int keep them out of the sum "
            "(preset svdquant-w4a4-native)",
        )
    if by_token and weight.fine == "int" and activation.bits == 2 * SMALL_CODES:
        return Fit("W4A8 int8")
    if activation.granularity != weight.granularity or activation.fine != weight.fine:
        return Fit("decode", f"{activation.label} inputs beside {weight.label} weights")
    if activation.bits != SMALL_CODES or getattr(activation.grid, "mode", "") == "asymmetric":
        return Fit("decode", f"no kernel for {activation.label} inputs")
    if activation.search:
        return Fit("decode", "input scales are searched; kernels take the nearest: input_search=0")
    return Fit("W4A4 fp8" if weight.fine == "pow2" else "W4A4 int8")


def _fit_convolution(weight: Quantizer, activation: Quantizer | None, transform: Any, branch: Any) -> Fit:
    if transform is not None or branch is not None:
        return Fit("decode", "a transform or a branch at a convolution")
    if weight.granularity.kind != "channel" or weight.scale != "real":
        return Fit("decode", f"no convolution for {weight.label} weights")
    grid = None if activation is None else activation.grid
    if activation is None or not isinstance(grid, IntGrid) or grid.mode != "symmetric":
        return Fit("decode", "the input is not symmetric integers")
    if activation.granularity.kind != "sample" or activation.schedule.kind != "dynamic":
        return Fit("decode", f"no convolution for {activation.schedule.kind} {activation.label} inputs")
    return Fit("conv int8")
