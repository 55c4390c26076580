"""Export: every tensor of a quantized model once, atomically."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.checkpoint.architecture import describe
from quant.checkpoint.header import KEY, Header, LayerParts, digest
from quant.errors import InputError
from quant.layers.install import quant_layers, state_of
from quant.layers.quantized import QuantLayer
from quant.plans.ledger import Ledger


def export(model: nn.Module, path: str | Path) -> Path:
    """Write a quantized model to one safetensors file.

    Codes are packed row-major (4-bit codes two a byte), scales are plain tensors, layers that were left alone
    are stored as they are. The file is written to a temporary name beside `path` and renamed.

    Parameters
    ----------
    model : torch.nn.Module
        After `quantize_` (or `load`).
    path : str or Path
        Ends in ``.safetensors``.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The model is not quantized or has no ledger, or the folder does not exist.
    """
    target = Path(path)
    state = state_of(model)
    if state is None:
        raise InputError("the model is not quantized: call quant.quantize_ before quant.export")
    if target.suffix != ".safetensors":
        raise InputError(f"{target} must end in .safetensors")
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist: make it first")
    if state.ledger is None:
        raise InputError(
            "the model has no ledger (its layers were installed from a Nunchaku file): quant.export writes "
            "what quant.quantize_ or quant.load made; use quant.interop.export_nunchaku"
        )
    tensors = collect(model)
    ledger: Ledger = state.ledger
    record = ledger.model_copy(update={"seconds_taken": 0.0, "bytes_header": 0})
    parts = {name: _parts(layer) for name, layer in quant_layers(model).items()}
    header = Header(architecture=describe(model), ledger=record.to_dict(), parts=parts)
    header.digest = digest(header, tensors)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, metadata={KEY: header.to_text()})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    ledger.bytes_header = target.stat().st_size - sum(t.numel() * t.element_size() for t in tensors.values())
    return target


def collect(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, without the decoded weights that layers cache.

    Buffers that PyTorch calls non-persistent are included: a model built on the meta device has no other way
    to get them back.
    """
    cached = {id(layer.weight) for layer in quant_layers(model).values()}
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: t.detach().cpu().contiguous() for name, t in named if id(t) not in cached}


def _parts(layer: QuantLayer) -> LayerParts:
    quantizer = layer.input_quantizer
    dtype = str(layer.weight.dtype).removeprefix("torch.")
    return LayerParts(
        dtype=dtype,
        weight_params=list(layer.weight_params),
        activation_params=[] if quantizer is None else list(quantizer.param_names),
        timesteps=quantizer is not None and "timesteps" in quantizer._buffers,
        transform=None if layer.transform is None else layer.transform.spec(),
        branch=None if layer.branch is None else layer.branch.spec(),
    )


def dtype_of(name: str) -> torch.dtype:
    """Look up a torch floating dtype by its name."""
    allowed = {
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
        "float32": torch.float32,
        "float64": torch.float64,
    }
    if name not in allowed:
        raise InputError(f"unknown dtype {name!r} in the checkpoint header, known: {', '.join(allowed)}")
    return allowed[name]
