"""Export: every tensor of a quantized model once, atomically."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.checkpoint.architecture import describe
from quant.checkpoint.header import KEY, Header, LayerParts, digest
from quant.denoisers.inventory import find_layers, tensor_bytes
from quant.errors import InputError
from quant.io import replacing
from quant.layers.install import quant_layers, refuse_adapters, state_of
from quant.layers.quantized import QuantLayer
from quant.plans.ledger import Ledger
from quant.training.fake import layers_in_training


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
        The model is not quantized or has no ledger, its layers are others since, or the folder does not
        exist.
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
    if unfinished := layers_in_training(model):
        raise InputError(
            f"{len(unfinished)} layers are in training (the first is {unfinished[0]!r}), and what helps them "
            "does not belong in a checkpoint: export after quant.quantize_ is through"
        )
    ledger: Ledger = state.ledger
    _check_layers(model, ledger)
    tensors = collect(model)
    sizes = {name: tensor_bytes(t) for name, t in model.named_parameters(remove_duplicate=False)}
    ledger.count_stored(sizes, sum(map(tensor_bytes, tensors.values())))
    record = ledger.model_copy(update={"seconds_taken": 0.0, "bytes_header": 0, "cost": {}, "launches": ""})
    parts = {name: _parts(layer) for name, layer in quant_layers(model).items()}
    header = Header(architecture=describe(model), ledger=record.to_dict(), parts=parts)
    header.digest = digest(header, tensors)
    with replacing(target) as temporary:
        save_file(tensors, temporary, metadata={KEY: header.to_text()})
    ledger.bytes_header = target.stat().st_size - sum(t.numel() * t.element_size() for t in tensors.values())
    return target


def _check_layers(model: nn.Module, ledger: Ledger) -> None:
    """Insist on the layers that were quantized: a file of others could not be loaded."""
    refuse_adapters(model)
    found, known = {layer.name for layer in find_layers(model)}, {record.name for record in ledger.layers}
    if found != known:
        name = sorted(found ^ known)[0]
        what = "was put into" if name in found else "was taken out of"
        raise InputError(
            f"layer {name!r} {what} the model after it was quantized (fused projections?): change the model "
            "first, then quantize and export it"
        )


def collect(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, without the decoded weights that layers cache.

    Buffers that PyTorch calls non-persistent are included: a model built on the meta device has no other way
    to get them back.
    """
    cached = {id(layer.decoded) for layer in quant_layers(model).values()}
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: t.detach().cpu().contiguous() for name, t in named if id(t) not in cached}


def _parts(layer: QuantLayer) -> LayerParts:
    quantizer = layer.input_quantizer
    dtype = str(layer.decoded.dtype).removeprefix("torch.")
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
