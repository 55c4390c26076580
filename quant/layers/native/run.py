"""Run a layer through the kernels: codes on both sides from end to end.

What a kernel takes is prepared once for each layer and again when a tensor it was made from changes. A layer
that no kernel fits says why; nothing falls back without that word in the path.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from quant.errors import InputError
from quant.layers.encoded import Encoded
from quant.layers.lowbit import paths
from quant.layers.native.fits import Fit, fit_of
from quant.layers.native.prepared import Convolution, Native, Product, prepare
from quant.modes import ordinary_mode


def run_native(layer: Encoded, x: Tensor) -> tuple[Tensor, str] | None:
    """Output of a layer and the path, where a kernel fits and can run here; else None.

    Raises
    ------
    InputError
        There is a kernel, and it does not take this input.
    """
    if torch.compiler.is_compiling():
        native = layer.native  # as the last eager forward, or `native_`, left it
    else:
        native = prepared(layer, x)
    if native is None:
        return None
    if not native.takes(x):
        raise InputError(
            f"{native.op}: no kernel takes {x.dtype} of shape {tuple(x.shape)}; they take bfloat16, float16 "
            "and float32 (convolutions: batches of images). Cast the model, or run it without native"
        )
    producer = layer.producer
    path = "" if torch.compiler.is_compiling() else native.path(x, producer)
    if isinstance(native, Product | Convolution):
        return native(x, producer), path
    return native(x if producer is None else producer.plain(x)), path


def op_of(layer: Encoded) -> str:
    """Operation of `kernels` that fits a layer, or "decode"."""
    return fit_layer(layer).op


def fit_layer(layer: Encoded) -> Fit:
    """Operation of `kernels` that fits a layer, or why none does."""
    quantizer = layer.input_quantizer
    activation = None if quantizer is None else quantizer.quantizer
    return fit_of(layer, layer.weight_quantizer, activation, layer.transform, layer.branch)


def needs_of(op: str) -> tuple[int, int]:
    """Least compute capability of an operation."""
    return paths.FLOAT8 if op == "W4A4 fp8" or op.endswith("e4m3") else (8, 0)


def prepared(layer: Encoded, x: Tensor) -> Native | None:
    """Prepare a layer for inputs as `x`, again when a tensor of it is another one or was written to.

    None where no kernel fits or can run on the device.
    """
    sources = _stored(layer)
    key = (x.dtype, x.device, *((t.data_ptr(), None if t.is_inference() else t._version) for t in sources))
    known, seen = layer.native_key or ((), ())
    # a new tensor may lie where a freed one lay, with as few writes
    if known != key or any(ref() is not tensor for ref, tensor in zip(seen, sources, strict=True)):
        op = op_of(layer)
        fits = op != "decode" and not paths.obstacle(x.device, needs_of(op))
        with ordinary_mode(), torch.no_grad():
            layer.native = prepare(layer, op, x.dtype) if fits else None
        layer.native_key = (key, tuple(map(weakref.ref, sources)))
    return layer.native


def _stored(layer: Any) -> list[Tensor]:
    """Tensors that a layer's state dictionary would hold, without making one: this runs in every forward."""
    found: list[Tensor] = []
    for module in layer.modules():
        hidden = module._non_persistent_buffers_set
        found += [tensor for tensor in module._parameters.values() if tensor is not None]
        found += [t for name, t in module._buffers.items() if t is not None and name not in hidden]
    return found
