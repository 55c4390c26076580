"""Formats that methods which train share: integers with stored float32 scales, by channel and by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from quant.denoisers.inventory import ASSUMED_TIMESTEPS, LayerInfo, tensor_bytes
from quant.formats.granularity import Granularity, input_layout
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer
from quant.formats.schedule import Schedule
from quant.observers.ranges import MseSearch

SEARCH = MseSearch(norm=2.4, candidates=40)


def by_channel(bits: int) -> Quantizer:
    """Weight: asymmetric integers, a scale for each output channel, searched by |error|^2.4."""
    return Quantizer(
        grid=IntGrid(bits=bits, mode="asymmetric"), granularity=Granularity(kind="channel"),
        schedule=Schedule(kind="static"), observer=SEARCH,
    )  # fmt: skip


def by_tensor(bits: int, temporal: bool = False, mode: Any = "asymmetric") -> Quantizer:
    """Input: one stored range, or one for each timestep."""
    schedule = Schedule(kind="timestep", match="nearest") if temporal else Schedule(kind="static")
    return Quantizer(
        grid=IntGrid(bits=bits, mode=mode), granularity=Granularity(kind="tensor"), schedule=schedule,
        observer=SEARCH,
    )  # fmt: skip


def stored_bytes(layer: LayerInfo, quantizer: Quantizer) -> tuple[int, str | None]:
    """Bytes of an input's stored ranges, and what is assumed in counting them."""
    shape = (1, layer.shape[1] * layer.groups, 1, 1) if layer.kind == "Conv2d" else (1, layer.shape[1])
    blank = quantizer.blank_params(shape, input_layout(layer.kind))
    one = sum(tensor_bytes(tensor) for tensor in blank.values())
    if quantizer.schedule.kind != "timestep":
        return one, None
    rows = ASSUMED_TIMESTEPS if layer.seen is None else layer.seen.timesteps
    assumed = " (assumed: there is no recording to count)" if layer.seen is None or layer.seen.assumed else ""
    return rows * (one + 4), f"input ranges for {rows} timesteps{assumed}"


def own_rank(shape: Sequence[int]) -> int:
    """Largest rank of a weight as (out, in * kernel * kernel)."""
    return min(shape[0], math.prod(shape[1:]))


def capped_rank(rank: int, most: int) -> str | None:
    """Say that a layer has a smaller rank than was asked for; None if it has not."""
    return f"rank {most} of {rank}: the layer has no more" if rank > most else None
