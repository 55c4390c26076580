"""Attention probabilities on a logarithmic grid, with the sink column found by measurement.

An attention module belongs to its projections: it is rounded if the plan quantizes one of them, by the
settings of the first one that it quantizes (queries, keys, values, then a second stream's). What include,
exclude and overrides say about the projections thus holds for the module too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.logs import LogGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.formats.schedule import Schedule
from quant.layers.attention import AttentionFormat, Watcher, find_attention
from quant.methods.dgq.config import DgqConfig
from quant.plans.plan import Plan

_TIMES_UNIFORM = 3.0
"""A sink also has so many times the mean probability: with few keys a large share alone says nothing."""
PROJECTIONS = ("to_q", "to_k", "to_v", "to_qkv", "to_kv", "add_q_proj", "add_k_proj", "add_v_proj")
"""Layers whose outputs an attention module attends with, by diffusers' names."""


class Mass:
    """Mean and largest probability of every key, over queries, heads, samples and timesteps."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0
        self.tops: Tensor | None = None  # stays on its device: reading it at each call would wait for a GPU
        self.fixed = True  # every call had the same number of keys

    def __call__(self, scores: Tensor, values: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Look at probabilities (batch, heads, q, k) and leave them as they are."""
        mass = scores.detach().double().sum((0, 1, 2))
        tops = scores.detach().amax((0, 1, 2))
        if self.total is not None and len(self.total) != len(mass):
            self.fixed = False
        elif self.fixed:
            self.total = mass if self.total is None else self.total + mass
            self.count += scores.shape[:3].numel()
        if self.tops is not None and len(self.tops) != len(tops):
            self.tops, tops = self.tops.amax(0, keepdim=True), tops.amax(0, keepdim=True)
        self.tops = tops if self.tops is None else torch.maximum(self.tops, tops)
        return scores, values

    def largest(self, sink: int | None = None) -> float:
        """Largest probability seen, the sink's column left out: ``s = max(A[:, 1:])`` of the publication."""
        if self.tops is None:
            return 0.0
        rest = torch.arange(len(self.tops), device=self.tops.device) != (-1 if sink is None else sink)
        return float(self.tops[rest].max())

    def sink(self, share: float) -> int | None:
        """Key with at least `share` of the mass and three times its fair part; None without one."""
        if self.total is None or not self.fixed or share >= 1 or len(self.total) < 2:
            return None
        mean = self.total / self.count
        column = int(mean.argmax())
        return column if mean[column] >= max(share, _TIMES_UNIFORM / len(mean)) else None


def attention_settings(model: nn.Module, plan: Plan) -> dict[str, DgqConfig]:
    """Find what is to be rounded: the settings of each module's first quantized projection."""
    lines = {line.name: line for line in plan.quantized}
    found: dict[str, DgqConfig] = {}
    for name in find_attention(model):
        line = next((lines[f"{name}.{p}"] for p in PROJECTIONS if f"{name}.{p}" in lines), None)
        own = None if line is None else DgqConfig.model_validate({**plan.config, **line.settings})
        if own is not None and own.attention != "none":
            found[name] = own
    return found


@contextmanager
def measured(model: nn.Module, found: Mapping[str, Mass]) -> Iterator[None]:
    """Watch some attention modules for a while, each with its own `Mass`.

    Raises
    ------
    InputError
        A module ran and its scores were not seen: its processor goes another way.
    """
    modules = dict(model.named_modules())
    watchers = [Watcher(mass, name).attach(modules[name]) for name, mass in found.items()]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.remove()


def attention_formats(found: dict[str, Mass], settings: dict[str, DgqConfig]) -> dict[str, AttentionFormat]:
    """Format of every attention module that calibration reached."""
    formats = {}
    for name, mass in found.items():
        own = settings[name]
        if mass.total is None:
            continue
        sink = mass.sink(own.sink_share)
        bits = own.attention_bits or own.activation_bits
        formats[name] = AttentionFormat(
            scores=score_quantizer(own.attention, bits, own.attention_octaves),
            values=None if own.value_bits is None else int_quantizer(own.value_bits, "token"),
            sink=sink,
            scale=mass.largest(sink) if own.attention == "static-log" else None,
            keep_sums=own.attention_keep_sums,
        )
    return formats


def score_quantizer(kind: str, bits: int, octaves: float | None = None) -> Quantizer:
    """``s 2^(-q step)``, q = 0 .. 2^b - 1, or uniform; s belongs to one image, never to a batch.

    The step is one octave, or `octaves` spread evenly over the codes.
    """
    whole = Granularity(kind="sample")
    if kind == "uniform":
        return Quantizer(grid=IntGrid(bits=bits, mode="unsigned"), granularity=whole)
    grid = LogGrid(bits=bits, octaves=octaves or float(2**bits - 1), signed=False)
    schedule = Schedule(kind="static" if kind == "static-log" else "dynamic")
    return Quantizer(grid=grid, granularity=whole, schedule=schedule)
