"""Weight and input sides that several methods share: a master weight, learned ranges, ranges by timestep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.granularity import Layout
from quant.formats.grids import IntGrid, Params
from quant.formats.quantizer import Quantizer
from quant.formats.rounding import as_storage, round_ste
from quant.formats.schedule import Clock, Schedule
from quant.formats.straight import straight
from quant.layers.encoded import EncodedWeight
from quant.training.fake import InputSide, WeightSide, wide


class Master(WeightSide):
    """A float32 weight whose rounding passes gradients, with scales that may be learned.

    Parameters
    ----------
    weight : tensor
    quantizer : Quantizer
        Its scales are stored as float32: what is trained is what is stored.
    layout : "linear_weight" or "conv_weight"
    """

    def __init__(self, weight: Tensor, quantizer: Quantizer, layout: Layout) -> None:
        super().__init__()
        self.quantizer, self.layout = quantizer, layout
        source = weight.detach().float()
        self.master = nn.Parameter(source.clone())
        found = quantizer.params(source, layout)
        self.scale = nn.Parameter(found["scale"].float().clone())
        self.zero = nn.Parameter(found["zero_point"].float().clone()) if "zero_point" in found else None
        # a learned scale can pass through nothing, a stored one cannot
        self.register_buffer("least", found["scale"].float() * 1e-3)

    def effective(self) -> Tensor:
        """Weight before rounding."""
        return self.master

    def params(self) -> Params:
        """Scales, and zero points as the integers they are stored as."""
        found: Params = {"scale": within(self.scale, self.least, math.inf)}
        if self.zero is not None:
            found["zero_point"] = whole(self.zero, self.quantizer)
        return found

    def weight(self) -> Tensor:
        return self.quantizer.fake(self.effective(), self.layout, self.params())

    def encoded(self) -> EncodedWeight:
        params = stored(self.params())
        return EncodedWeight.from_weight(self.effective(), self.quantizer, self.layout, params)


class Rows:
    """Rows of a table by timestep, looked up once for each forward of the model.

    Parameters
    ----------
    timesteps : sequence of float
        Of the recording.
    schedule : Schedule
    clock : Clock
    """

    def __init__(self, timesteps: tuple[float, ...], schedule: Schedule, clock: Clock) -> None:
        self.table = torch.tensor(sorted(set(timesteps)), dtype=torch.float32)
        self.schedule, self.clock = schedule, clock
        self._seen: Tensor | None = None
        self._rows: list[int] = []
        self._places: dict[tuple[int, torch.device], Tensor] = {}
        self._tables: dict[torch.device, Tensor] = {}
        self._whole = False

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Use all rows in a block, without looking which: a CUDA graph cannot wait for what it reads."""
        self._on(self.clock.now().timesteps.device)
        self._whole = True
        try:
            yield
        finally:
            self._whole, self._seen, self._places = False, None, {}

    def nearest(self, timesteps: Tensor) -> Tensor:
        """Row of each timestep: int64 (n,)."""
        return (timesteps.reshape(-1, 1) - self._on(timesteps.device)).abs().argmin(1)

    def _on(self, device: torch.device) -> Tensor:
        """Give the table's copy on a device, which stays where it is."""
        if device not in self._tables:
            self._tables[device] = self.table.to(device)
        return self._tables[device]

    def used(self) -> list[int]:
        """Rows of the current batch, each once."""
        if self._whole:
            return list(range(len(self.table)))
        reading = self.clock.now()
        if self._seen is not reading.timesteps:  # a GPU would wait at every layer
            self._rows = self.schedule.rows(reading, self._on(reading.timesteps.device)).tolist()
            self._seen, self._places = reading.timesteps, {}
        return sorted(set(self._rows))

    def places(self, samples: int, device: torch.device) -> Tensor:
        """Where each input row's table row stands in `used`: int64 (samples,)."""
        used, key = self.used(), (samples, device)
        if self._whole:
            rows = self.nearest(self.clock.now().timesteps)
            times, each = self.clock.shares(len(rows), samples) if len(rows) > 1 else (samples, 1)
            return rows.repeat(times).repeat_interleave(each)
        if key not in self._places:
            count = len(self._rows)
            times, each = self.clock.shares(count, samples) if count > 1 else (samples, 1)
            order = [used.index(row) for row in self._rows * times for _ in range(each)]
            self._places[key] = torch.tensor(order, device=device)
        return self._places[key]


class StoredInput(InputSide):
    """Calibrated ranges, learned: one, or one for each timestep of the recording.

    By timestep they are TALSQ (He et al. 2024, equation 9).

    Only the rows of the timesteps in a batch get gradients; each row is a parameter of its own, so that
    neither momentum nor decay moves the others.

    Parameters
    ----------
    quantizer : Quantizer
        By tensor; schedule static or timestep.
    layout : "linear_input" or "conv_input"
    params : dict of str to tensor
        Starting scale and zero point, in the rank of the input.
    rows : Rows, optional
        Of the table; one range for all without it.
    """

    def __init__(
        self, quantizer: Quantizer, layout: Layout, params: Params, rows: Rows | None = None
    ) -> None:  # fmt: skip
        super().__init__()
        self.quantizer, self.layout, self.rows = quantizer, layout, rows
        count = 1 if rows is None else len(rows.table)

        def copies(x: Tensor) -> nn.ParameterList:
            return nn.ParameterList(nn.Parameter(x.float().clone()) for _ in range(count))

        self.scale = copies(params["scale"])
        self.zero = copies(params["zero_point"]) if "zero_point" in params else None
        self.register_buffer("least", params["scale"].float() * 1e-3)

    def _read(self, rows: list[int]) -> Params:
        """Parameters of some rows, one after the other along axis 0."""
        found: Params = {"scale": within(torch.cat([self.scale[row] for row in rows]), self.least, math.inf)}
        if self.zero is not None:
            found["zero_point"] = whole(torch.cat([self.zero[row] for row in rows]), self.quantizer)
        return found

    def now(self, x: Tensor) -> Params:
        """Parameters for this input."""
        if self.rows is None:
            return self._read([0])
        found = self._read(used := self.rows.used())
        if len(used) == 1:
            return found
        places = self.rows.places(x.shape[0], x.device)
        return {name: value[places] for name, value in found.items()}

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer.fake(wide(x), self.layout, self.now(x)).to(x.dtype)

    def params(self) -> tuple[Params, Tensor | None]:
        each = [stored(self._read([row])) for row in range(len(self.scale))]
        if self.rows is None:
            return each[0], None
        table = {name: torch.stack([row[name] for row in each]) for name in each[0]}
        # a copy: a tensor that layers share would be written once
        return table, self.rows.table.to(self.least.device, copy=True)


class DynamicInput(InputSide):
    """Ranges from each call's data: nothing to learn, nothing to store."""

    def __init__(self, quantizer: Quantizer, layout: Layout) -> None:
        super().__init__()
        self.quantizer, self.layout = quantizer, layout

    def forward(self, x: Tensor) -> Tensor:
        grid = self.quantizer.grid
        if not (isinstance(grid, IntGrid) and grid.mode == "symmetric" and x.requires_grad):
            return self.quantizer.fake(x, self.layout)
        with torch.no_grad():  # the largest value has the largest code: none is clipped, all gradients pass
            values = self.quantizer.fake(x, self.layout)
        return straight(x, values)


class _Within(torch.autograd.Function):
    """Clamp forwards; backwards what lies outside gets the gradients that lead it in again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor | float, high: float) -> Tensor:
        below, above = x < low, x > high
        ctx.save_for_backward(below, above)
        return x.clamp(max=high).clamp(min=low)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        below, above = ctx.saved_tensors
        outwards = (below & (grads[0] > 0)) | (above & (grads[0] < 0))
        return grads[0].masked_fill(outwards, 0.0), None, None


def within(x: Tensor, low: Tensor | float, high: float) -> Tensor:
    """Hold a learned number in a range that it can come back to: a plain clamp has no gradient outside.

    Many zero points begin at an end of the codes, where one step outwards would be the last one.
    """
    found: Tensor = _Within.apply(x, low, high)
    return found


def whole(zero: Tensor, quantizer: Quantizer) -> Tensor:
    """Round a learned zero point to a code; the gradient goes straight through."""
    assert isinstance(quantizer.grid, IntGrid)
    low, high = quantizer.grid.code_range
    return round_ste(within(zero, low, high))


def stored(params: Params) -> Params:
    """Parameters as a file keeps them: float32 scales, integer zero points."""
    found = {name: value.detach().clone() for name, value in params.items()}
    found["scale"] = as_storage(found["scale"], False, torch.float32)
    if "zero_point" in found:
        found["zero_point"] = found["zero_point"].to(torch.uint8)
    return found
