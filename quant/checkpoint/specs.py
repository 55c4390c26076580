"""Descriptions of transforms and branches in a header, checked before anything is built from them.

`quant.layers.attachments` writes and rebuilds them; here stands what a description may say for a layer of a
given size. Sizes come from the tensors that the file holds, so no description makes anything large.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from quant.denoisers.inventory import LayerInfo
from quant.errors import InputError
from quant.layers.rotations import factors_of

Sizes = dict[str, tuple[int, ...]]
_SEEDS = 2**46
"""Seeds are multiplied by 65537 for a generator of 64 bits."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    shapes: dict[str, list[int]]

    def sizes(self, n: int, k: int) -> Sizes:
        """Shapes that the tensors must have in a layer of `n` outputs and `k` inputs."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def misfit(self, k: int, linear: bool) -> str | None:
        """Say what else does not fit such a layer."""
        return None


class _OnChannels(_Spec):
    channel_axis: Literal[-1, 1]

    def misfit(self, k: int, linear: bool) -> str | None:
        wanted = -1 if linear else 1
        return None if self.channel_axis == wanted else f"channel_axis is {self.channel_axis}, not {wanted}"


class _Smooth(_OnChannels):
    kind: Literal["smooth"]
    shift: float = Field(default=0.0, allow_inf_nan=False)

    def sizes(self, n: int, k: int) -> Sizes:
        return {"factor": (k,)}


class _Rotate(_OnChannels):
    kind: Literal["rotate"]
    count: int
    block: int
    moves: Annotated[list[list[int]], Field(min_length=2, max_length=2)] | None
    seed: int = Field(gt=-_SEEDS, lt=_SEEDS)
    signed: bool = False

    def sizes(self, n: int, k: int) -> Sizes:
        return {name: (k,) for name in ("factor", "order") if name in self.shapes}

    def misfit(self, k: int, linear: bool) -> str | None:
        if self.count != k:
            return f"it rotates {self.count} channels of {k}"
        block = self.block
        if self.moves is None:
            if factors_of(k) is None:
                return f"{k} channels have no rotation by factors"
        elif block < 1 or block & (block - 1) or k % block:
            return f"block is {block}, not a power of two that divides {k}"
        elif any(not 0 <= move < block for chain in self.moves for move in chain):
            return f"a move lies outside of its block of {block}"
        return super().misfit(k, linear)


class _OnTokens(_Spec):
    def misfit(self, k: int, linear: bool) -> str | None:
        return None if linear else "it belongs to linears only"


class _SinkDrop(_OnTokens):
    kind: Literal["sink_drop"]

    def sizes(self, n: int, k: int) -> Sizes:
        return {"token": (k,), "position": (1,)}


class _SinkRow(_OnTokens):
    kind: Literal["sink_row"]

    def sizes(self, n: int, k: int) -> Sizes:
        return {"token": (k,), "position": (1,), "row": (n,), "bias": (n,)}


class _LowRank(_OnTokens):
    kind: Literal["low_rank"]

    def sizes(self, n: int, k: int) -> Sizes:
        rank = (self.shapes.get("down") or [0])[0]
        return {"down": (rank, k), "up": (n, rank)}


ROLES: dict[str, dict[str, type[_Spec]]] = {
    "transform": {"smooth": _Smooth, "rotate": _Rotate, "sink_drop": _SinkDrop},
    "branch": {"low_rank": _LowRank, "sink_row": _SinkRow},
}


def tensor_names(spec: dict[str, Any] | None, role: str, layer: LayerInfo) -> list[str]:
    """Tensors that a description asks for, after checking all that can be checked without them.

    Parameters
    ----------
    spec : dict, optional
        From the header; None: no such part.
    role : {"transform", "branch"}
    layer : LayerInfo
        Of the bare model.

    Raises
    ------
    InputError
        Names the part and what is wrong, without the file.
    """
    if spec is None:
        return []
    known = ROLES[role]
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f"unknown {role} {kind!r} in the checkpoint, known: {', '.join(known)}")
    try:
        parsed = known[kind].model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"its {role} {kind!r} is damaged: {where}: {first['msg'].lower()}") from None
    channels, linear = layer.shape[1] * layer.groups, layer.kind == "Linear"
    sizes = parsed.sizes(layer.shape[0], channels)
    for name in sorted(set(sizes) | set(parsed.shapes)):
        found = tuple(parsed.shapes[name]) if name in parsed.shapes else None
        if found != sizes.get(name) or 0 in (found or ()):
            raise InputError(
                f"its {role} {kind!r} is damaged: shape of {name!r} is {found}, expected {sizes.get(name)}"
            )
    reason = parsed.misfit(channels, linear)
    if reason:
        raise InputError(f"its {role} {kind!r} is damaged: {reason}")
    return list(sizes)


def check_tensors(spec: dict[str, Any] | None, role: str, tensors: dict[str, Tensor]) -> None:
    """Insist on shapes, types and values that the part can work with."""
    for name, tensor in tensors.items():
        start = f"{name!r} of its {role} {(spec or {})['kind']!r}"
        wanted = tuple((spec or {})["shapes"][name])
        if tuple(tensor.shape) != wanted:
            raise InputError(f"{start} is {tuple(tensor.shape)} in the file, {wanted} in the header")
        if name == "position":
            if tensor.dtype != torch.int64 or int(tensor) < -1:
                raise InputError(f"{start} must be one int64 of at least -1, got {tensor.dtype}")
        elif name == "order":
            integer = tensor.dtype in (torch.int16, torch.int32)
            if not integer or not torch.equal(
                tensor.long().sort().values, torch.arange(len(tensor), device=tensor.device)
            ):
                raise InputError(f"{start} must be an int16 or int32 permutation of all channels")
        elif not tensor.is_floating_point():
            raise InputError(f"{start} must be floating-point numbers, got {tensor.dtype}")
        elif name == "factor" and not bool((tensor > 0).all()):
            raise InputError(f"{start} must be positive: inputs are divided by it")
