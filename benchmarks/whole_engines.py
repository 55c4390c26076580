"""One model three ways: 16 bit, row-wise float8 through torch, 4 bits through the kernels.

Weights are random, so methods have nothing to find: layers are rounded to nearest beside a branch of rank 32
from `torch.svd_lowrank`. That is the arithmetic of SVDQuant and enough for time and memory; it says nothing
about pictures.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Clock, Schedule
from quant.layers.attachments import LowRank
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import quant_layers
from quant.layers.native.run import prepared
from quant.layers.quantized import make

RANK = 32
GROUP = Granularity(kind="group", group_size=64)
_STATIC = Schedule(kind="static")
WEIGHT = Quantizer(grid=IntGrid(bits=4), granularity=GROUP, fine="pow2", schedule=_STATIC)
INPUT = Quantizer(grid=IntGrid(bits=4), granularity=GROUP, fine="pow2")
E4M3_MAX = 448.0


class RowwiseFloat8(nn.Module):
    """A linear through ``torch._scaled_mm``: scales of tokens, found in every call, and of channels."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.float().abs().amax(1, keepdim=True) / E4M3_MAX
        self.register_buffer("codes", (linear.weight.float() / scale).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale.T.contiguous())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Quantize rows and multiply."""
        codes: Any = self.codes
        flat = x.reshape(-1, x.shape[-1])
        unit = flat.abs().amax(1, keepdim=True).float().clamp(min=1e-6) / E4M3_MAX
        out = torch._scaled_mm(
            (flat.float() / unit).to(torch.float8_e4m3fn), codes.T, scale_a=unit, scale_b=self.scale,
            bias=self.bias, out_dtype=x.dtype, use_fast_accum=True,
        )  # fmt: skip
        return out.reshape(*x.shape[:-1], -1)


def named_layers(model: nn.Module, kinds: Any) -> Iterator[tuple[nn.Module, str, str, Any]]:
    """Parent, name in it, full name, layer."""
    for prefix, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kinds):
                yield parent, name, f"{prefix}.{name}" if prefix else name, child


def to_float8_(model: nn.Module, large: Callable[[str, Any], bool]) -> int:
    """Replace the large linears; return their number."""
    count = 0
    for parent, name, full, layer in named_layers(model, nn.Linear):
        if large(full, layer):
            parent._modules[name] = RowwiseFloat8(layer)
            count += 1
    return count


def to_native_(
    model: nn.Module, large: Callable[[str, Any], bool], few: Callable[[str, Any], bool], convolutions: bool
) -> dict[str, int]:
    """Replace layers by quantized ones on the kernels' path, one after the other; return numbers by kind.

    Parameters
    ----------
    model : torch.nn.Module
    large, few : callable
        Which linears become W4A4 with a branch, and which W4A16: those that see few rows, and those whose
        products are no faster in 8 bits.
    convolutions : bool
        3x3 convolutions become W8A8.
    """
    found: dict[str, int] = {}
    for parent, name, full, layer in named_layers(model, (nn.Linear, nn.Conv2d)):
        if isinstance(layer, nn.Linear) and large(full, layer):
            kind, result = "W4A4", _with_branch(layer.weight)
        elif isinstance(layer, nn.Linear) and few(full, layer):
            kind, result = "W4A16", LayerResult(_encoded(layer.weight.float(), WEIGHT, "linear_weight"))
        elif convolutions and isinstance(layer, nn.Conv2d) and _inner(layer):
            weight = int_quantizer(8, "channel", schedule=_STATIC)
            encoded = _encoded(layer.weight.float(), weight, "conv_weight")
            kind, result = "conv W8A8", LayerResult(encoded, int_quantizer(8, "sample"))
        else:
            continue
        made = make(layer, result, Clock(), keep_original=False)
        made.backend = "kernels"
        made.forget_decoded()
        parent._modules[name] = made
        found[kind] = found.get(kind, 0) + 1
    return found


def _with_branch(weight: Tensor) -> LayerResult:
    wide = weight.detach().float()
    rank = min(RANK, *(size // 4 for size in wide.shape))
    u, s, v = torch.svd_lowrank(wide, q=rank, niter=1)
    up, down = (u * s.sqrt()).to(weight.dtype), (v * s.sqrt()).T.to(weight.dtype).contiguous()
    encoded = _encoded(wide - up.float() @ down.float(), WEIGHT, "linear_weight")
    return LayerResult(encoded, INPUT, branch=LowRank(down, up))


def _encoded(weight: Tensor, quantizer: Quantizer, layout: Any) -> EncodedWeight:
    return EncodedWeight.from_weight(weight.detach(), quantizer, layout)


def _inner(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (3, 3) and min(layer.in_channels, layer.out_channels) >= 16


def prepare_native_(model: nn.Module, dtype: torch.dtype) -> int:
    """Make what the kernels take before a compiled forward looks at it; return the number of layers."""
    layers = quant_layers(model).values()
    return sum(
        prepared(one, torch.empty(0, dtype=dtype, device=one.codes.device)) is not None for one in layers
    )


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of every tensor that a forward of the model reads, each storage once."""
    seen: dict[int, int] = {}

    def count(value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                count(getattr(value, field.name))

    for tensor in (*model.parameters(), *model.buffers()):
        count(tensor)
    for layer in quant_layers(model).values():
        count(layer.native)
    return sum(seen.values())


def settle(device: torch.device) -> int:
    """Free what nobody holds; bytes allocated on a GPU, 0 elsewhere."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()
