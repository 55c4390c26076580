"""Attention probabilities on a logarithmic grid, with the sink column found by measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from quant.attention import AttentionFormat, Watcher, find_attention
from quant.granularity import Granularity
from quant.grid import IntGrid, LogGrid
from quant.methods.dgq.config import DgqConfig
from quant.quantizer import Quantizer, int_quantizer
from quant.schedule import Schedule

_TIMES_UNIFORM = 3.0
"""A sink also has so many times the mean probability: with few keys a large share alone says nothing."""


class Mass:
    """Mean probability of every key over queries, heads, samples and timesteps, and the largest one."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0
        self.top: Tensor | None = None  # stays on its device: reading it at every call would wait for a GPU
        self.fixed = True  # every call had the same number of keys

    def __call__(self, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Look at probabilities (batch, heads, q, k) and leave them as they are."""
        mass = scores.detach().double().sum((0, 1, 2))
        if self.total is not None and len(self.total) != len(mass):
            self.fixed = False
        elif self.fixed:
            self.total = mass if self.total is None else self.total + mass
            self.count += scores.shape[:3].numel()
        top = scores.detach().max()
        self.top = top if self.top is None else torch.maximum(self.top, top)
        return scores, values

    @property
    def largest(self) -> float:
        """Largest probability seen."""
        return 0.0 if self.top is None else float(self.top)

    def sink(self, share: float) -> int | None:
        """Key with at least `share` of the mass and three times its fair part; None without one."""
        if self.total is None or not self.fixed or share >= 1 or len(self.total) < 2:
            return None
        mean = self.total / self.count
        column = int(mean.argmax())
        return column if mean[column] >= max(share, _TIMES_UNIFORM / len(mean)) else None


@contextmanager
def measured(model: nn.Module, wanted: bool = True) -> Iterator[dict[str, Mass]]:
    """Watch every attention module for a while, if wanted; gives what is found, complete at the end."""
    modules = dict(model.named_modules())
    found = {name: Mass() for name in find_attention(model)} if wanted else {}
    watchers = [Watcher(mass).attach(modules[name]) for name, mass in found.items()]
    try:
        yield found
    finally:
        for watcher in watchers:
            watcher.remove()


def attention_formats(found: dict[str, Mass], config: DgqConfig) -> dict[str, AttentionFormat]:
    """Format of every attention module that calibration reached."""
    bits = config.attention_bits or config.activation_bits
    values = None if config.value_bits is None else int_quantizer(config.value_bits, "token")
    static = config.attention == "static-log"
    return {
        name: AttentionFormat(
            scores=score_quantizer(config.attention, bits, config.attention_octaves),
            values=values,
            sink=mass.sink(config.sink_share),
            scale=mass.largest if static else None,
            keep_sums=config.attention_keep_sums,
        )
        for name, mass in found.items()
        if mass.total is not None
    }


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
