"""State dictionaries of quantized layers: what does not fit is refused, and nothing half-fits.

PyTorch compares names and shapes, and casts. That takes the scales of one quantization for the codes of
another, a bias without its codes, or codes of another number format without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quant.errors import InputError
from quant.formats.quantizer import Quantizer
from quant.layers.encoded import Encoded, EncodedWeight

KEY = "quant"
"""In the metadata that PyTorch keeps beside a state dictionary: `describe`."""


def describe(layer: Encoded) -> str:
    """Say what a layer's tensors do not: formats, kinds of transform and branch, as JSON."""
    inputs = layer.input_quantizer
    sides = {name: getattr(layer, name) for name in ("transform", "branch")}
    specs = {
        name: None if side is None else {key: v for key, v in side.spec().items() if key != "shapes"}
        for name, side in sides.items()
    }
    weight = layer.weight_quantizer.model_dump(mode="json", exclude={"observer", "search", "schedule"})
    given = None if inputs is None else inputs.quantizer.model_dump(mode="json")
    return json.dumps({"weight": weight, "input": given, **specs}, sort_keys=True)


def check_state(layer: Encoded, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Refuse entries for a layer that are of another quantization, of none, or incomplete.

    Parameters
    ----------
    layer : Encoded
    state : dict of str to tensor
    prefix : str
        Of the layer's entries, with its dot.
    metadata : dict
        PyTorch's, of the layer.

    Raises
    ------
    InputError
        Says what does not fit, and what to do.
    """
    found = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    if not found:
        return  # of another part of the model; where everything is asked for, PyTorch says what is missing
    where = repr(prefix.rstrip(".")) if prefix else "the layer"
    own: dict[str, Tensor] = layer.state_dict()
    if "weight" in found:
        raise InputError(
            f"the state for {where} is a full-precision layer's, and the layer is quantized: call "
            "quant.restore_(model) first, and quantize again afterwards"
        )
    remedy = "load the state of a model that was quantized with the same recipe, or use quant.load"
    surplus, lacking = sorted(set(found) - set(own)), sorted(set(own) - set(found) - {"bias"})
    if surplus or (lacking and set(found) != {"bias"}):
        what = f"has {surplus[0]!r}, which it lacks" if surplus else f"lacks {lacking[0]!r}"
        raise InputError(f"the state for {where} is of another quantization (it {what}): {remedy}")
    for name, value in found.items():
        reason = _misfit(value, own[name], exact=name != "bias")
        if reason:
            raise InputError(f"the state for {where} does not fit: {name!r} is {reason}: {remedy}")
    if set(found) == {"bias"}:
        return
    stored = metadata.get(KEY)
    if stored is not None and stored != describe(layer):
        raise InputError(f"the state for {where} is of another format ({_change(stored, layer)}): {remedy}")
    params = {name: found[f"weight_{name}"] for name in layer.weight_params}
    fault = layer.weight_quantizer.grid.fault(params)
    if fault:
        raise InputError(f"the state for {where} has {fault}: {remedy}")


def check_encoded(encoded: EncodedWeight) -> None:
    """Refuse codes and parameters that are not those of a weight of this format and shape.

    Raises
    ------
    InputError
        Says which tensor it is.
    """
    fault = encoded.fault()
    if fault:
        raise InputError(f"{fault}: put the codes and scales of one quantization into the layer")


def _misfit(value: Any, own: Tensor, exact: bool) -> str | None:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}, not a tensor"
    if tuple(value.shape) != tuple(own.shape):
        return f"{tuple(value.shape)}, expected {tuple(own.shape)}"
    if (exact and value.dtype != own.dtype) or value.is_floating_point() != own.is_floating_point():
        return f"{value.dtype}, expected {own.dtype}"
    if value.is_floating_point() and not value.is_meta and not bool(torch.isfinite(value.float()).all()):
        return "not finite"
    return None


def _change(stored: str, layer: Encoded) -> str:
    try:
        there, here = json.loads(stored), json.loads(describe(layer))
        name = next(name for name in here if there.get(name) != here[name])
        labels = [Quantizer(**side[name]).label if name in ("weight", "input") and side[name] else side[name]
                  for side in (there, here)]  # fmt: skip
    except (ValueError, TypeError, AttributeError, StopIteration):
        return "its description cannot be read"
    if labels[0] == labels[1]:
        return f"{name} is {there[name]}, here it is {here[name]}"
    return f"{name} is {labels[0]}, here it is {labels[1]}"
