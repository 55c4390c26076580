"""Run a model on a device that cannot hold it: each layer's weight comes when it is needed and goes again.

>>> # with quant.denoisers.offload.streamed(model, "cuda"):      # the model is on the CPU, in bfloat16
>>> #     quant.quantize_(model, "svdquant-w4a4", trajectories=store)

Only one Linear or Conv2d is on the device at a time; norms, embeddings and other small tensors stay there for
the whole block. Methods that work layer by layer (`svdquant`, `rtn`) then need the device's memory for one
layer's problem, the calibration rows and one batch's activations, whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def streamed(model: nn.Module, device: str | torch.device) -> Iterator[nn.Module]:
    """Lend a model's forward to `device`, layer by layer, for a while.

    Parameters
    ----------
    model : torch.nn.Module
        Anywhere, usually on the CPU; its layers' weights stay there.
    device : device
        Where everything is computed. The first parameter of the model lies there, which is how callers know
        where inputs go.

    Yields
    ------
    torch.nn.Module
        The same model. Afterwards every tensor is where it was, whatever happened.
    """
    target = torch.device(device)
    first = next(model.parameters(), None)
    heavy = [
        module for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and all(p is not first for p in module.parameters())
    ]  # fmt: skip
    lent = {id(module) for module in heavy}
    back: list[Callable[[], None]] = []
    try:
        for module in model.modules():
            if id(module) in lent:
                back += _on_demand(module, target)
            else:
                back.append(_moved(module, target))
        yield model
    finally:
        for undo in back:
            undo()


def _moved(module: nn.Module, target: torch.device) -> Callable[[], None]:
    """Put a module's own tensors on the device; returns what puts the originals back."""
    parameters, buffers = dict(module._parameters), dict(module._buffers)
    for name, parameter in parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(
                parameter.detach().to(target, non_blocking=True), requires_grad=False
            )
    for name, buffer in buffers.items():
        if buffer is not None:
            module._buffers[name] = buffer.to(target, non_blocking=True)

    def undo() -> None:
        module._parameters.update(parameters)
        module._buffers.update(buffers)

    return undo


def _on_demand(module: nn.Module, target: torch.device) -> list[Callable[[], None]]:
    """Hooks that bring a layer's tensors before its forward and drop the copies after it."""
    away: list[Callable[[], None]] = []

    def bring(module: nn.Module, args: Any) -> None:
        away.append(_moved(module, target))

    def drop(module: nn.Module, args: Any, out: Any) -> None:
        while away:
            away.pop()()

    # first in, so that hooks which look at the layer see it where it runs
    return [
        module.register_forward_pre_hook(bring, prepend=True).remove,
        module.register_forward_hook(drop, always_call=True).remove,
    ]


def to_device(result: Any, device: torch.device | str) -> Any:
    """Move a `LayerResult` to a device, in place; the same object."""
    move: Callable[[Any], Any] = lambda x: x.to(device) if isinstance(x, (Tensor, nn.Module)) else x  # noqa: E731
    result.weight.packed = move(result.weight.packed)
    result.weight.params = {name: move(value) for name, value in result.weight.params.items()}
    result.activation_params = {name: move(value) for name, value in result.activation_params.items()}
    for name in ("timesteps", "transform", "branch", "bias"):
        setattr(result, name, move(getattr(result, name)))
    return result
