"""What is reconstructed together: residual and transformer blocks as they run, single layers between."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from quant.errors import InputError
from quant.recordings.sampling import predict
from quant.recordings.trajectories import Batch

BLOCK = re.compile(r"ResnetBlock2D|\w*TransformerBlock|CogVideoXBlock")
"""Classes of diffusers that are one block."""


@dataclass(frozen=True)
class Unit:
    """A module and the layers in it that get codes, in execution order."""

    name: str
    layers: tuple[str, ...]


def find_units(model: nn.Module, names: Sequence[str], batch: Batch, blocks: bool) -> list[Unit]:
    """Group layers by block, in the order a forward reaches them; layers it never reaches are left out.

    Parameters
    ----------
    model : torch.nn.Module
    names : sequence of str
        Layers to quantize.
    batch : Batch
        Its first point is run.
    blocks : bool
        False makes every layer a unit of its own.
    """
    modules = dict(model.named_modules())
    order: list[str] = []
    handles = [modules[n].register_forward_pre_hook(lambda m, a, n=n: order.append(n)) for n in names]
    try:
        with torch.no_grad():
            predict(model, *_rows(batch, slice(0, 1)))
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(order):
        groups.setdefault(_owner(modules, name) if blocks else name, []).append(name)
    return [Unit(owner, tuple(layers)) for owner, layers in groups.items()]


def _owner(modules: dict[str, nn.Module], layer: str) -> str:
    """Name of the innermost block around a layer, or the layer's own."""
    parent = layer
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if BLOCK.fullmatch(type(modules[parent]).__name__):
            return parent
    return layer


def _rows(batch: Batch, rows: slice | list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
    return batch.x[rows], batch.timestep[rows], None if batch.condition is None else batch.condition[rows]


class Inputs:
    """Arguments of a module for all calibration points, cut by point.

    Tensors with one row a point are cut, everything else is passed on as it was. Which is which shows in a
    call with another number of points: a table of rotary angles may by chance have as many rows as there
    are points in a batch, and has as many in any other.

    Parameters
    ----------
    calls : list of (arguments, number of points)
    probe : (arguments, number of points)
        One more call, with another number of points than the first.

    Raises
    ------
    InputError
        An argument's size follows the batch, but not with one row a point.
    """

    def __init__(self, calls: list[tuple[Any, int]], probe: tuple[Any, int]) -> None:
        flat = [tree_flatten(call)[0] for call, _ in calls]
        self.spec = tree_flatten(calls[0][0])[1]
        self.count = sum(size for _, size in calls)
        self.leaves: list[Any] = []
        self.cut: list[bool] = []
        sizes = [size for _, size in (*calls, probe)]
        for *column, other in zip(*flat, tree_flatten(probe[0])[0], strict=True):
            shapes = [leaf.shape if isinstance(leaf, Tensor) else () for leaf in (*column, other)]
            rowwise = all(shape[:1] == (size,) for shape, size in zip(shapes, sizes, strict=True))
            if not rowwise and len(set(shapes)) > 1:
                raise InputError(
                    f"a block gets an argument of shape {tuple(shapes[0])} for {sizes[0]} points and "
                    f"{tuple(shapes[-1])} for {sizes[-1]}, which cannot be cut by point: exclude its layers"
                )
            self.cut.append(rowwise)
            self.leaves.append(torch.cat(column) if rowwise else column[0])

    def rows(self, index: Tensor) -> list[Any]:
        """Leaves for some points."""
        return [leaf[index] if cut else leaf for leaf, cut in zip(self.leaves, self.cut, strict=True)]

    def call(self, module: nn.Module, leaves: list[Any]) -> Tensor:
        """Run a module on leaves; blocks of joint attention return text and image tokens: one sequence."""
        args, kwargs = tree_unflatten(leaves, self.spec)
        out = module(*args, **kwargs)
        if isinstance(out, Tensor):
            return out
        streams = [part for part in out if isinstance(part, Tensor)]
        return streams[0] if len(streams) == 1 else torch.cat(streams, 1)


class _Reached(Exception):
    """The module that was waited for has its input: the rest of the forward is not needed."""


@torch.no_grad()
def inputs_of(model: nn.Module, name: str, batch: Batch, size: int) -> Inputs:
    """Run the model as it is now up to a module and keep what it is called with."""
    calls: list[tuple[Any, int]] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(((args, kwargs), 0))
        raise _Reached

    def reach(x: Tensor, timestep: Tensor, condition: Tensor | None) -> None:
        try:
            predict(model, x, timestep, condition)
        except _Reached:
            calls[-1] = (calls[-1][0], len(x))

    handle = model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        for start in range(0, len(batch.key), size):
            reach(*_rows(batch, slice(start, start + size)))
        # another number of points: one, or one twice
        again = slice(0, 1) if calls[0][1] > 1 else [0, 0]
        reach(*_rows(batch, again))
    finally:
        handle.remove()
    return Inputs(calls[:-1], calls[-1])


@contextmanager
def swapped(root: nn.Module, children: dict[str, nn.Module]) -> Iterator[None]:
    """Put other modules in the places of some, for a while; names are relative to `root`."""
    before = {name: root.get_submodule(name) for name in children}

    def put(which: dict[str, nn.Module]) -> None:
        for name, module in which.items():
            parent, _, leaf = name.rpartition(".")
            root.get_submodule(parent)._modules[leaf] = module

    try:
        put(children)
        yield
    finally:
        put(before)


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Keep the last output of some modules."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        return lambda module, args, out: seen.__setitem__(name, out)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
