"""Weight and input sides that several methods share: a master weight, learned ranges, ranges by timestep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.formats.granularity import Layout
from quant.formats.grids import IntGrid, Params
from quant.formats.quantizer import Quantizer
from quant.formats.rounding import as_storage, round_ste
from quant.formats.schedule import Clock
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
        found: Params = {"scale": torch.maximum(self.scale, self.least)}
        if self.zero is not None:
            found["zero_point"] = whole(self.zero, self.quantizer)
        return found

    def weight(self) -> Tensor:
        return self.quantizer.fake(self.effective(), self.layout, self.params())

    def encoded(self) -> EncodedWeight:
        params = stored(self.params())
        return EncodedWeight.from_weight(self.effective(), self.quantizer, self.layout, params)


class StoredInput(InputSide):
    """Calibrated ranges, learned: one, or one for each timestep of the recording.

    Only the rows of the timesteps in a batch get gradients; each row is a parameter of its own, so that
    neither momentum nor decay moves the others.

    Parameters
    ----------
    quantizer : Quantizer
        By tensor; schedule static or timestep.
    layout : "linear_input" or "conv_input"
    params : dict of str to tensor
        Starting scale and zero point, in the rank of the input.
    timesteps : sequence of float, optional
        Of the rows.
    clock : Clock, optional
        Where the current timestep is read.
    """

    def __init__(
        self, quantizer: Quantizer, layout: Layout, params: Params,
        timesteps: tuple[float, ...] | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.quantizer, self.layout, self.clock = quantizer, layout, clock
        known = sorted(set(timesteps or ()))
        self.timesteps = torch.tensor(known, dtype=torch.float32) if known else None
        rows = max(1, len(known))

        def copies(x: Tensor) -> nn.ParameterList:
            return nn.ParameterList(nn.Parameter(x.float().clone()) for _ in range(rows))

        self.scale = copies(params["scale"])
        self.zero = copies(params["zero_point"]) if "zero_point" in params else None
        self.register_buffer("least", params["scale"].float() * 1e-3)

    def _row(self, index: int) -> Params:
        found: Params = {"scale": torch.maximum(self.scale[index], self.least)}
        if self.zero is not None:
            found["zero_point"] = whole(self.zero[index], self.quantizer)
        return found

    def now(self, x: Tensor) -> Params:
        """Parameters for this input."""
        if self.timesteps is None or self.clock is None:
            return self._row(0)
        rows = self.quantizer.schedule.rows(self.clock.now(), self.timesteps.to(x.device)).tolist()
        if len(set(rows)) == 1:
            return self._row(rows[0])
        each = {row: self._row(row) for row in set(rows)}
        # one row of the table for each sample; guidance stacks whole batches
        order = rows * (x.shape[0] // len(rows))
        return {name: torch.cat([each[row][name] for row in order]) for name in each[rows[0]]}

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer.fake(wide(x), self.layout, self.now(x)).to(x.dtype)

    def params(self) -> tuple[Params, Tensor | None]:
        rows = [stored(self._row(index)) for index in range(len(self.scale))]
        if self.timesteps is None:
            return rows[0], None
        table = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return table, self.timesteps.to(self.least.device)


class DynamicInput(InputSide):
    """Ranges from each call's data: nothing to learn, nothing to store."""

    def __init__(self, quantizer: Quantizer, layout: Layout) -> None:
        super().__init__()
        self.quantizer, self.layout = quantizer, layout

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer.fake(x, self.layout)


def whole(zero: Tensor, quantizer: Quantizer) -> Tensor:
    """Round a learned zero point to a code; the gradient goes straight through inside the code range."""
    assert isinstance(quantizer.grid, IntGrid)
    low, high = quantizer.grid.code_range
    return round_ste(zero.clamp(low, high))


def stored(params: Params) -> Params:
    """Parameters as a file keeps them: float32 scales, integer zero points."""
    found = {name: value.detach().clone() for name, value in params.items()}
    found["scale"] = as_storage(found["scale"], False, torch.float32)
    if "zero_point" in found:
        found["zero_point"] = found["zero_point"].to(torch.uint8)
    return found
