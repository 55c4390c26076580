"""Whole files in the layout of SVDQuant's engine; single linears: `quant.interop.nunchaku`.

The header has what the engine's Python class reads: ``config`` (diffusers' JSON, from which it builds the
model) and ``quantization_config``. ``unsigned_layers`` in the latter is ours: the tensors do not say which
inputs have no sign.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from quant.checkpoint.architecture import describe
from quant.errors import InputError, MissingDataError
from quant.interop import fragments as order
from quant.interop.nunchaku import (
    CHANNEL,
    NAMES,
    OLD_NAMES,
    ORIG,
    check_dtype,
    from_nunchaku,
    to_nunchaku,
    why_not,
)
from quant.io import replacing, sort_metadata
from quant.layers.attachments import LowRank
from quant.layers.effective import folded
from quant.layers.encoded import LayerResult
from quant.layers.install import quant_layers
from quant.layers.quantized import QuantLayer

_OWN = {*NAMES, *OLD_NAMES, CHANNEL, ORIG} - {"bias"}
"""Names that only a linear in this layout has."""


def export_nunchaku(
    model: nn.Module, path: str | Path, dtype: torch.dtype = torch.bfloat16
) -> dict[str, str]:
    """Write every SVDQuant linear of a quantized model in the engine's layout, all else as it is.

    Parameters
    ----------
    model : torch.nn.Module
    path : str or Path
        Ends in ``.safetensors``; written beside and renamed.
    dtype : torch.bfloat16 or torch.float16

    Returns
    -------
    dict of str to str
        Quantized layers that have no place in the layout, decoded to `dtype`, and why.

    Raises
    ------
    InputError
        No layer has a place, `dtype` is another, or the folder does not exist.
    """
    check_dtype(dtype)
    target = Path(path)
    if target.suffix != ".safetensors" or not target.parent.is_dir():
        raise InputError(f"{target} must end in .safetensors and lie in an existing folder")
    layers = quant_layers(model)
    reasons = {name: why_not(layer) for name, layer in layers.items()}
    fitting = [name for name, reason in reasons.items() if reason is None]
    if not fitting:
        first = next(iter(reasons.items()), ("none", "the model is not quantized"))
        raise InputError(f"no layer has a place in Nunchaku's layout; {first[0]!r}: {first[1]}")
    tensors: dict[str, Tensor] = {}
    quantization = _config(layers, fitting)
    for name, layer in layers.items():
        if reasons[name] is None:
            try:
                packed = to_nunchaku(layer, dtype, quantization["rank"])
                tensors.update({f"{name}.{key}": t for key, t in packed.items()})
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
    for name, tensor in model.state_dict().items():
        owner = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
        if owner is None:
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    left = {name: reason for name, reason in reasons.items() if reason is not None}
    for name in left:
        try:
            weight, bias = folded(layers[name])
        except InputError as error:
            raise InputError(f"{name}: {error}: exclude it when you quantize") from None
        tensors[f"{name}.weight"] = weight.to(dtype)
        if bias is not None:
            tensors[f"{name}.bias"] = bias.to(dtype)
    architecture = describe(model)
    metadata = {
        "model_class": architecture.model_class, "quantization_config": json.dumps(quantization),
    }  # fmt: skip
    if architecture.config is not None:
        config = {"_class_name": architecture.model_class, **architecture.config}
        metadata["config"] = json.dumps(config, sort_keys=True)
    with replacing(target) as temporary:
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata=metadata)
        sort_metadata(temporary)
    return left


def read_nunchaku(path: str | Path, model: nn.Module | dict[str, tuple[int, ...]]) -> dict[str, LayerResult]:
    """Read the SVDQuant linears of a file.

    Parameters
    ----------
    path : str or Path
    model : torch.nn.Module, or dict of str to (N, K)
        Its linears tell the sizes, which a file's padding hides, the type of their bias, and whether they
        have one at all: the layout writes zeros for none. Bare shapes tell sizes only, so a bias comes in the
        file's 16 bits then.

    Returns
    -------
    dict of str to LayerResult
        By layer name; `quant.layers.install.install_` puts them into a model.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Damaged, without such linears, of another format, or with a linear that the model lacks.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"no file {path}: give a safetensors file in Nunchaku's layout")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error})") from None
    groups: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        name, _, key = full.rpartition(".")
        groups.setdefault(name, {})[key] = tensor
    names = [name for name, own in groups.items() if "qweight" in own]
    if not names:
        raise InputError(f"{path} has no linear in Nunchaku's layout (no name ends in .qweight)")
    half = next(
        ((n, k) for n, own in groups.items() for k in own if k in _OWN and "qweight" not in own), None
    )
    if half:
        raise InputError(
            f"{path}: {half[0]} has {half[1]!r} but no 'qweight': half a linear, get the file anew"
        )
    unsigned = _unsigned_layers(metadata, names, path)
    linears = _linears(model) if isinstance(model, nn.Module) else {}
    shapes = {n: tuple(m.weight.shape) for n, m in linears.items()} if isinstance(model, nn.Module) else model
    results = {}
    for name in names:
        if name not in shapes:
            raise InputError(f"{path} is for another architecture: there is no linear {name!r}")
        try:
            results[name] = from_nunchaku(groups[name], shapes[name], unsigned=name in unsigned)
            if name in linears:
                results[name].bias = _bias_for(linears[name], results[name].bias)
        except InputError as error:
            raise InputError(f"{path}: {name}: {error}") from None
    return results


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def _bias_for(linear: nn.Linear, bias: Tensor | None) -> Tensor | None:
    """Bias in the type that the linear computes in; none for a linear without."""
    if linear.bias is None:
        if bias is not None and bool(bias.any()):
            raise InputError("it has a bias and the model's linear has none: another architecture")
        return None
    if bias is None:
        return torch.zeros(linear.out_features, dtype=linear.weight.dtype)  # not the bare model's random one
    return bias.to(linear.weight.dtype)


def _unsigned_layers(metadata: dict[str, str], names: list[str], path: object) -> set[str]:
    """Linears whose inputs have no sign, after checking that the header speaks of INT4 in groups of 64."""
    try:
        config = json.loads(metadata.get("quantization_config", "{}"))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path}: quantization_config in the header is not a JSON object: get the file anew")
    for side in ("weight", "activation"):
        number = config.get(side) or {}
        for key, wanted in (("dtype", "int4"), ("group_size", order.GROUP)):
            value = number.get(key) if isinstance(number, dict) else number
            if value not in (None, wanted):
                raise InputError(f"{path}: {side} {key} is {value!r} in the header, only {wanted!r} is read")
    unsigned = config.get("unsigned_layers", [])
    if not isinstance(unsigned, list) or not all(isinstance(name, str) for name in unsigned):
        raise InputError(f"{path}: unsigned_layers in the header is {unsigned!r}, not a list of linears")
    unknown = [name for name in unsigned if name not in names]
    if unknown:
        raise InputError(f"{path}: unsigned_layers in the header names {unknown[0]!r}, which the file lacks")
    return set(unsigned)


def _config(layers: dict[str, QuantLayer], names: list[str]) -> dict[str, Any]:
    number = {"dtype": "int4", "scale_dtype": None, "group_size": order.GROUP}
    branches = [layers[name].branch for name in names]
    ranks = [branch.down.shape[0] for branch in branches if isinstance(branch, LowRank)]
    unsigned = [n for n in names if getattr(layers[n].transform, "shift", 0.0)]
    rank = -(-max(ranks, default=0) // order.RANKS) * order.RANKS
    return {
        "method": "svdquant", "weight": number, "activation": number, "rank": rank,
        "unsigned_layers": unsigned,
    }  # fmt: skip
