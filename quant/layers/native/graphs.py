"""A denoiser as CUDA graphs: what Python does between launches is done once for each shape of inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from quant.errors import HardwareError, InputError
from quant.layers.install import state_of

WARM_UPS = 2
"""Forwards before capturing: kernels are compiled, workspaces made, layers prepared."""


@contextmanager
def graphed(model: nn.Module, most: int = 8) -> Iterator[nn.Module]:
    """Replay a model's forward from CUDA graphs in a ``with``; one is captured for each shape of inputs.

    Parameters
    ----------
    model : torch.nn.Module
        On a CUDA device, with one path through its forward. Its tensors must not be replaced meanwhile.
    most : int
        Graphs kept; further shapes run without.

    Raises
    ------
    HardwareError
        The model is not on a CUDA device.
    InputError
        A layer looks at the timestep in Python, which a graph would see once; or the model is compiled whole.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        raise HardwareError(f"CUDA graphs need a CUDA device, and the model is on {device}")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise InputError(
            "the model was compiled by model.compile(), which would trace the capture itself: compile its "
            "blocks, or model.forward = torch.compile(model.forward)"
        )
    state = state_of(model)
    if state is not None and state.hook is not None:
        raise InputError("the recipe picks scales by the timestep's value in Python: no CUDA graph holds it")
    forward, before = model.forward, model.__dict__.get("forward")
    graphs: dict[Any, Graph] = {}

    def replay(*args: Any, **kwargs: Any) -> Any:
        flat, spec = tree_flatten((args, kwargs))
        tensors = [value.to(device) if isinstance(value, Tensor) else value for value in flat]
        key = (spec, torch.is_grad_enabled(), *map(shape_of, tensors))
        if key not in graphs:
            if len(graphs) >= most:
                return forward(*args, **kwargs)
            graphs[key] = Graph(forward, tensors, spec)
        return graphs[key](tensors)

    model.__dict__["forward"] = replay
    try:
        yield model
    finally:
        del model.__dict__["forward"]
        if before is not None:
            model.__dict__["forward"] = before


def shape_of(value: Any) -> Any:
    """Return what a graph holds of an argument: of a tensor all but its numbers, else the value."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype, value.device)
    return value


@lru_cache(maxsize=16)
def _beside(device: int) -> Any:
    """Return the stream that forwards are captured on: libraries keep a workspace for each that they saw."""
    return torch.cuda.Stream(device)


@contextmanager
def _alarmed() -> Iterator[None]:
    """Raise where an operation waits for the device, in a ``with``.

    In a capture it would raise as well, but up to PyTorch 2.11 a capture that fails leaves the allocator
    unable to give memory back (pytorch/pytorch#180395).
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not know all of them
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Graph:
    """One captured forward.

    Parameters
    ----------
    forward : callable
    flat, spec
        Its arguments, flattened; tensors on the device.
    warm_ups : int
        Forwards before the one that is captured, 1 or more.

    Raises
    ------
    RuntimeError
        It waits for the device, does what no graph holds, or memory does not suffice.
    """

    def __init__(
        self, forward: Callable[..., Any], flat: list[Any], spec: Any, warm_ups: int = WARM_UPS
    ) -> None:
        self.held = [value.clone() if isinstance(value, Tensor) else value for value in flat]
        args, kwargs = tree_unflatten(self.held, spec)
        place = next((value.get_device() for value in flat if isinstance(value, Tensor)), None)
        with torch.cuda.device(place):  # streams and captures are of the current device
            self._capture(forward, args, kwargs, warm_ups)

    def _capture(
        self, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any], warm_ups: int
    ) -> None:
        stream = _beside(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.no_grad(), torch.cuda.stream(stream):
                for _ in range(warm_ups - 1):
                    forward(*args, **kwargs)
                with _alarmed():
                    forward(*args, **kwargs)
        finally:
            torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self.graph, stream=stream):
            self.out = forward(*args, **kwargs)

    def __call__(self, flat: list[Any]) -> Any:
        """Copy inputs in, replay, copy the result out."""
        for held, given in zip(self.held, flat, strict=True):
            if isinstance(held, Tensor):
                held.copy_(given)
        self.graph.replay()
        return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, self.out)
