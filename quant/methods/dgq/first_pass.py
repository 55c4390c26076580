"""The pass over the recording that ranges and attention are measured in, kept in a `State` as it goes."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.clusters import CHANNEL, POSITION
from quant.formats.granularity import input_layout
from quant.methods.dgq.attention import Mass, measured
from quant.methods.dgq.config import DgqConfig
from quant.methods.dgq.ranges import AxisRanges
from quant.plans.plan import LayerPlan
from quant.recordings.rows import watch
from quant.registry import Context
from quant.training.state import Saved

KEY = "first-pass"
EVERY = 30.0
"""Seconds between two times that the pass is kept: at each layer and timestep it holds every position."""
BATCH = 8
"""Samples of a forward."""
_SIDES = ("low", "high")


def first_pass(
    model: nn.Module, lines: list[LayerPlan], attention: list[str], config: DgqConfig, context: Context
) -> tuple[dict[str, AxisRanges], dict[str, Mass]]:
    """Watch inputs and attention over all timesteps; stopped and started again it goes on where it was kept.

    Parameters
    ----------
    model : torch.nn.Module
        Full precision.
    lines : list of LayerPlan
        Whose inputs get ranges.
    attention : list of str
        Modules whose probabilities are measured.
    config : DgqConfig
    context : Context

    Returns
    -------
    ranges : dict of str to AxisRanges
        By layer; empty ones of layers that were never reached.
    found : dict of str to Mass
        By attention module.
    """
    ranges = {line.name: AxisRanges(input_layout(line.kind)) for line in lines}
    found = {name: Mass() for name in attention}
    saved = None if context.state is None else context.state.get(KEY)
    done = 0 if saved is None else _unpack(saved, ranges, found, context.device)
    last = time.monotonic()

    def keep(seen: int, total: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        state = context.state
        if state is not None and state.folder is not None and (seen == total or now - last >= EVERY):
            state.put(KEY, *_pack(seen, ranges, found))
            last = now
        context.progress(seen, total, what)

    with measured(model, found):
        watch(
            model, context.recording, ranges, lambda name, x, t: ranges[name].update(x, t),
            samples=config.samples, batch_size=BATCH, done=done, progress=keep,
        )  # fmt: skip
    return ranges, found


def _pack(
    done: int, ranges: dict[str, AxisRanges], found: dict[str, Mass]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {"done": done, "timesteps": {}, "attention": {}}
    for name, seen in ranges.items():
        values["timesteps"][name] = list(seen.tables)
        for axis in (CHANNEL, POSITION) if seen.tables else ():
            for side, label in enumerate(_SIDES):
                rows = [table[axis][side] for table in seen.tables.values()]
                tensors[f"{name}/{axis}/{label}"] = torch.stack(rows)
    for name, mass in found.items():
        values["attention"][name] = [mass.count, mass.fixed]
        if mass.total is not None and mass.tops is not None:
            tensors |= {f"{name}/total": mass.total, f"{name}/tops": mass.tops}
    return tensors, values


def _unpack(
    saved: Saved, ranges: dict[str, AxisRanges], found: dict[str, Mass], device: torch.device | str
) -> int:
    """Put back what `_pack` took; how many samples were seen."""
    tensors = {name: tensor.to(device) for name, tensor in saved.tensors.items()}
    for name, seen in ranges.items():
        for place, timestep in enumerate(saved.values["timesteps"][name]):
            seen.tables[timestep] = [
                (tensors[f"{name}/{axis}/low"][place], tensors[f"{name}/{axis}/high"][place])
                for axis in (CHANNEL, POSITION)
            ]
    for name, mass in found.items():
        mass.count, mass.fixed = saved.values["attention"][name]
        mass.total, mass.tops = tensors.get(f"{name}/total"), tensors.get(f"{name}/tops")
    return int(saved.values["done"])
