"""The activation side of a quantized layer: a quantizer, its schedule and its calibrated parameters."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from quant.formats.clusters import expand
from quant.formats.granularity import Layout
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer
from quant.formats.schedule import Clock


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
        rows = self.quantizer.schedule.rows(self.clock.now(), self.timesteps)
        if self.quantizer.granularity.kind == "cluster":
            rows = rows[:1] if bool((rows == rows[0]).all()) else rows.repeat(x.shape[0] // len(rows))
            return expand(stored, rows, self.layout, x.shape)
        if len(rows) == 1 or bool((rows == rows[0]).all()):
            return {name: table[rows[0]] for name, table in stored.items()}
        # a batch of mixed timesteps: one row of the table for each sample (guidance stacks whole batches)
        rows = rows.repeat(x.shape[0] // len(rows))
        return {name: table[rows].flatten(0, 1) for name, table in stored.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Round `x` to the grid."""
        return self.quantizer.fake(x, self.layout, self.params(x))

    def encode(self, x: Tensor) -> tuple[Tensor, Params]:
        """Codes and parameters of `x`, for the kernels."""
        return self.quantizer.encode(x, self.layout, self.params(x))

    def extra_repr(self) -> str:
        """Describe the layer for `print(model)`."""
        return f"{self.quantizer.label}, {self.quantizer.schedule.label}"
