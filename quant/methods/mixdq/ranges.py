"""Static input ranges: running average of each batch's extremes, or the extremes of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.skips import halves
from quant.errors import MissingDataError
from quant.formats.quantizer import Quantizer
from quant.layers.activation import Known
from quant.layers.sinks import matches
from quant.methods.mixdq.config import MixdqConfig
from quant.methods.mixdq.sinks import Sink
from quant.plans.plan import LayerPlan
from quant.recordings.rows import calibration_keys, null_of, run_batch
from quant.recordings.trajectories import Trajectories
from quant.registry import Context


class RunningRange:
    """Lowest and highest input of a layer, as scalars or a channel.

    Parameters
    ----------
    momentum : float or None
        Share of the old value after each batch; None keeps the extremes of all batches.
    per_channel : bool
        For a skip concatenation, whose halves get their own range.
    """

    def __init__(self, momentum: float | None, per_channel: bool) -> None:
        self.momentum, self.per_channel = momentum, per_channel
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Take a batch in."""
        dims = (0, 2, 3) if self.per_channel else tuple(range(x.ndim))
        low, high = x.float().amin(dims, keepdim=True), x.float().amax(dims, keepdim=True)
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        elif self.momentum is None:
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        else:
            self.low = self.momentum * self.low + (1 - self.momentum) * low
            self.high = self.momentum * self.high + (1 - self.momentum) * high

    def bounds(self, quantizer: Quantizer, split: int | None) -> tuple[Tensor, Tensor]:
        """Low and high in the shape of the quantizer's parameters."""
        if self.low is None or self.high is None:
            raise RuntimeError("the range has seen no input")
        if quantizer.granularity.kind == "input_channel":
            return halves(self.low, self.high, split)
        return self.low, self.high


@torch.no_grad()
def input_ranges(
    model: nn.Module, trajectories: Trajectories, lines: Sequence[LayerPlan], sinks: dict[str, Sink],
    config: MixdqConfig, context: Context,
) -> dict[str, RunningRange]:  # fmt: skip
    """Run the full-precision model over recorded points and follow the inputs of `lines`.

    Timesteps come in random order: a running average would otherwise remember the last ones only. Constant
    sinks take no part. With guidance every point is seen under the null condition too.

    Raises
    ------
    MissingDataError
        There are no samples to calibrate on, or a layer never ran.
    InputError
        A prediction is NaN or infinite.
    """
    if not lines:
        return {}
    ranges = {
        line.name: RunningRange(
            config.momentum,
            line.activation is not None and line.activation.granularity.kind == "input_channel",
        )
        for line in lines
    }
    modules, null = dict(model.named_modules()), null_of(trajectories)
    handles = [
        modules[name].register_forward_pre_hook(_look(range_, sinks.get(name)))
        for name, range_ in ranges.items()
    ]
    points = min(config.points, len(calibration_keys(trajectories)) * len(trajectories.timesteps))
    seen = 0
    try:
        for batch in trajectories.batches("calibrate", batch_size=config.batch_size, shuffle=context.seed):
            if seen >= points:
                break
            context.progress(seen, points, "calibrating inputs")
            run_batch(model, batch)
            if null is not None and batch.condition is not None:
                nothing = null.to(batch.condition).expand_as(batch.condition)
                run_batch(model, replace(batch, condition=nothing))
            seen += len(batch.key)
    finally:
        for handle in handles:
            handle.remove()
    for name, range_ in ranges.items():
        if range_.low is None:
            raise MissingDataError(
                f"layer {name!r} never ran on the calibration data: exclude it, or record trajectories with "
                "the conditions that use it"
            )
    return ranges


def _look(seen: RunningRange, sink: Sink | None) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0]
        if sink is not None and sink.constant:
            where = matches(x, sink.token, torch.tensor([sink.position]), Known())
            if where is not None:
                x = x.masked_fill(where, 0.0)  # 0 is in every range
        seen.update(x)

    return hook
