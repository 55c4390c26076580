"""The activation side of a quantized layer: a quantizer, its schedule and its calibrated parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from quant.formats.clusters import expand, together
from quant.formats.granularity import Layout
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer
from quant.formats.schedule import Clock
from quant.modes import ordinary_mode


class ExactBuffers(nn.Module):
    """Buffers that follow device moves but keep their dtype (`model.half()` must not touch a scale)."""

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        before = {
            name: b for name, b in self._buffers.items() if name in self.exact_buffers() and b is not None
        }
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(moved.device)
        return self

    def exact_buffers(self) -> list[str]:
        """Names of the buffers that keep their dtype."""
        return list(self._buffers)


class Known:
    """What some tensors say, kept until one of them is another tensor or was written to.

    Reading a number off a GPU waits for all work before it; with several processes on one GPU each wait is a
    turn of the others.
    """

    def __init__(self) -> None:
        self._of: tuple[tuple[Tensor, int | None], ...] = ()
        self._found: dict[Any, Any] = {}

    def get(self, key: Any, tensors: Sequence[Tensor], read: Callable[[], Any]) -> Any:
        """Return what ``read`` gave for this key and these tensors; compiled forwards read every time."""
        if torch.compiler.is_compiling():
            return read()
        now = [(t, None if t.is_inference() else t._version) for t in tensors]
        same = len(now) == len(self._of) and all(
            t is seen and version is not None and version == known
            for (t, version), (seen, known) in zip(now, self._of, strict=True)
        )
        if not same:
            self._of, self._found = tuple(now), {}
        if key not in self._found:
            with ordinary_mode():  # what is kept may be saved for a later backward
                self._found[key] = read()
        return self._found[key]


class ActivationQuantizer(ExactBuffers):
    """Fake-quantizes a layer's input.

    Parameters
    ----------
    quantizer : Quantizer
    layout : "linear_input" or "conv_input"
    params : dict of str to tensor
        Calibrated parameters; empty for a dynamic schedule. For a per-timestep schedule axis 0 is the table.
    timesteps : tensor of shape (rows,), optional
        Timestep value of each row.
    clock : Clock, optional
        Where the current timestep is read.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        layout: Layout,
        params: Params | None = None,
        timesteps: Tensor | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.layout: Layout = layout
        self.clock = clock
        self.param_names = tuple(params or ())
        for name, tensor in (params or {}).items():
            self.register_buffer(name, tensor)
        if timesteps is not None:
            self.register_buffer("timesteps", timesteps.float())
        self.known = Known()

    def params(self, x: Tensor) -> Params:
        """Parameters in force for this input."""
        kind = self.quantizer.schedule.kind
        if kind == "dynamic":
            return self.quantizer.params(x, self.layout)
        stored: Params = {name: getattr(self, name) for name in self.param_names}
        if kind == "static":
            return stored
        if self.clock is None:
            raise RuntimeError(
                "a per-timestep schedule needs a clock; install the layer through quantize_ or load"
            )
        tables = [self.timesteps, *stored.values()]
        values = self.known.get("timesteps", tables, lambda: tuple(self.timesteps.tolist()))
        rows = self.clock.rows(self.quantizer.schedule, self.timesteps, values)
        one = len(set(rows)) == 1
        if not one:  # a batch of mixed timesteps
            times, each = self.clock.shares(len(rows), x.shape[0])
            rows = [row for row in rows * times for _ in range(each)]
        if self.quantizer.granularity.kind == "cluster":
            chosen = [rows[0]] if one else rows
            return together([
                self.known.get((row, x.shape[1:]), tables, partial(expand, stored, row, self.layout, x.shape))
                for row in chosen
            ])  # fmt: skip
        if one:
            return {name: table[rows[0]] for name, table in stored.items()}
        index = torch.tensor(rows, device=x.device)
        return {name: table[index].flatten(0, 1) for name, table in stored.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Round `x` to the grid."""
        return self.quantizer.fake(x, self.layout, self.params(x))

    def encode(self, x: Tensor) -> tuple[Tensor, Params]:
        """Codes and parameters of `x`, for the kernels."""
        return self.quantizer.encode(x, self.layout, self.params(x))

    def extra_repr(self) -> str:
        """Describe the layer for `print(model)`."""
        return f"{self.quantizer.label}, {self.quantizer.schedule.label}"
