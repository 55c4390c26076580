"""Finished layers, kept in a `State`: what a method that solves layer by layer goes on from after a stop."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.offload import to_device
from quant.layers.attachments import build
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.plans.layer import LayerPlan
from quant.training.state import State

_GENERATOR, _OWN = "generator", "own generator"


def keep(
    state: State | None, results: Mapping[str, LayerResult], generator: torch.Generator | None = None
) -> None:
    """Keep the results of layers that were worked out together, and where the random generators stand.

    Parameters
    ----------
    state : State or None
        None keeps nothing.
    results : mapping of str to LayerResult
        By layer, in the order of `kept`.
    generator : torch.Generator, optional
        One of the method's that goes on from layer to layer.
    """
    if state is None or state.folder is None:
        return
    tensors: dict[str, Tensor] = {_GENERATOR: torch.get_rng_state()}
    if generator is not None:
        tensors[_OWN] = generator.get_state()
    values: dict[str, Any] = {}
    for number, (name, result) in enumerate(results.items()):
        weight, sides = result.weight, {"transform": result.transform, "branch": result.branch}
        found: dict[str, Any] = {"packed": weight.packed, "timesteps": result.timesteps, "bias": result.bias}
        found |= _under("weight", weight.params) | _under("input", result.activation_params)
        for side, part in sides.items():
            found |= {} if part is None else _under(side, part.state_dict())
        found = {key: value for key, value in found.items() if value is not None}
        tensors |= {f"{number}.{key}": value for key, value in found.items()}
        specs = {side: None if part is None else _spec(part) for side, part in sides.items()}
        values[name] = {
            "layout": weight.layout, "shape": list(weight.shape), "notes": result.notes,
            "sqnr_db": result.sqnr_db, "order": list(found), **specs,
        }  # fmt: skip
    state.put(_key(list(results)), tensors, values)


def kept(
    state: State | None, lines: Sequence[LayerPlan], device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> dict[str, LayerResult] | None:  # fmt: skip
    """Return what `keep` has of these layers; the random generators then stand where they stood.

    Parameters
    ----------
    state : State or None
    lines : sequence of LayerPlan
        Of layers that are worked out together.
    device : torch.device or str
        Where the results are to be.
    generator : torch.Generator, optional
        As it was given to `keep`.

    Returns
    -------
    dict of str to LayerResult, or None
        None where nothing was kept.

    Raises
    ------
    InputError
        The file is damaged.
    """
    saved = None if state is None else state.get(_key([line.name for line in lines]))
    if saved is None:
        return None
    results = {}
    for number, line in enumerate(lines):
        about, prefix = saved.values[line.name], f"{number}."
        # parameters are exported in the order in which the method gave them
        found = {key: saved.tensors[prefix + key] for key in about["order"]}
        assert line.weight is not None  # planned layers have a format
        weight = EncodedWeight(
            line.weight, about["layout"], tuple(about["shape"]), found["packed"], _of("weight", found)
        )
        result = LayerResult(
            weight, line.activation, _of("input", found), found.get("timesteps"),
            transform=build(about["transform"], _of("transform", found)),
            branch=build(about["branch"], _of("branch", found)),
            bias=found.get("bias"), notes=about["notes"], sqnr_db=about["sqnr_db"],
        )  # fmt: skip
        results[line.name] = to_device(result, device)
    torch.set_rng_state(saved.tensors[_GENERATOR])
    if generator is not None:
        generator.set_state(saved.tensors[_OWN])
    return results


def _key(names: Sequence[str]) -> str:
    return f"layers-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}"


def _spec(part: nn.Module) -> dict[str, Any]:
    spec: dict[str, Any] = part.spec()  # type: ignore[operator]
    return spec


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for key, value in tensors.items()}


def _of(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
