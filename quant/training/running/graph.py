"""Forward and backward of a training step as one CUDA graph.

A step of a small model in training is thousands of small kernels, and starting them takes longer than they
do. A graph starts them all at once. It holds whatever Python decided while it was captured, so a task has
to say what its loss depends on beside the batch (`Task.fixed`), and a graph is used only after it has given
the loss and the gradients of the plain step on two different batches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Backward = Callable[[Any, int], Tensor]
"""``backward(batch, step)``: the loss, with gradients collected."""
PLAIN = 3
"""Plain steps before a capture: libraries set themselves up in the first ones."""
TOLERANCE = 5e-3
"""Relative; sums come in another order on a GPU, and a number near the middle of two codes goes elsewhere."""


class Table(Protocol):
    """Parameters of which a batch reads some rows; a graph reads all, and those unread get no gradient."""

    def whole(self) -> AbstractContextManager[None]:
        """Read all rows in a block."""

    def unread(self, batch: Any) -> Iterable[nn.Parameter]:
        """Parameters of the rows that a batch does not read."""


@dataclass
class Captured:
    """A graph, the batch that it reads and what it writes."""

    graph: torch.cuda.CUDAGraph
    batch: Any
    loss: Tensor
    gradients: list[Tensor | None]
    checked: int = 0
    """Steps in which it was found to be right."""


class Graphed:
    """Runs steps, from a graph where that is possible and right.

    Parameters
    ----------
    backward : callable
    parameters : list of Parameter
        Whose gradients the step collects.
    fixed : callable, optional
        ``fixed(step)``: what the loss depends on beside the batch; None at a step that must be plain.
        Without it all are.
    device : str
        Of the model; on a CPU all steps are plain.
    table : Table, optional

    Attributes
    ----------
    replayed : int
        Steps that came from a graph.
    refused : str
        Why there are no graphs any more; empty if nothing is wrong.
    """

    def __init__(
        self, backward: Backward, parameters: list[nn.Parameter],
        fixed: Callable[[int], Hashable] | None, device: str, table: Table | None = None,
    ) -> None:  # fmt: skip
        self.backward, self.parameters, self.device, self.table = backward, parameters, device, table
        self.fixed = fixed if torch.device(device).type == "cuda" else None
        self.key: Hashable = None
        self.captured: Captured | None = None
        self.plain = self.replayed = 0
        self.refused = ""
        # libraries and allocator warm up on the stream that a capture is on
        self.stream = None if self.fixed is None else torch.cuda.Stream(device)

    def __call__(self, batch: Any, step: int) -> Tensor:
        """Loss of a step, detached; gradients are in the parameters."""
        key = None if self.fixed is None or self.refused else self.fixed(step)
        if key is None:
            return self.backward(batch, step)
        if key != self.key:
            self.key, self.captured, self.plain = key, None, 0
        known = self.captured
        fits = known is not None and shapes(batch) == shapes(known.batch)
        if known is not None and fits and known.checked > 1:
            self.replayed += 1
            return self._replay(known, batch)
        with _aside(self.stream):
            loss = self.backward(moved(batch, self.device), step)
        self.plain += 1
        with self._untouched():
            if known is not None and fits:
                self._check(known, batch, loss)
            elif known is None and self.plain >= PLAIN:
                self._capture(batch, step)
        return loss

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Leave gradients as they are: those of the plain step count."""
        before = [p.grad for p in self.parameters]
        try:
            yield
        finally:
            for parameter, gradient in zip(self.parameters, before, strict=True):
                parameter.grad = gradient

    def _capture(self, batch: Any, step: int) -> None:
        static = moved(batch, self.device, copy=True)
        for parameter in self.parameters:
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        whole = nullcontext() if self.table is None else self.table.whole()
        try:
            with whole, torch.cuda.graph(graph, stream=self.stream):
                loss = self.backward(static, step)
        except RuntimeError as error:
            self.refused = f"capture failed: {error}".splitlines()[0]
            return
        self.captured = Captured(graph, static, loss, [p.grad for p in self.parameters])

    def _replay(self, known: Captured, batch: Any) -> Tensor:
        for old, new in zip(tensors(known.batch), tensors(batch), strict=True):
            if old is not None:
                old.copy_(new)
        known.graph.replay()
        for parameter, gradient in zip(self.parameters, known.gradients, strict=True):
            parameter.grad = gradient
        for parameter in () if self.table is None else self.table.unread(batch):
            parameter.grad = None
        return known.loss.clone()

    def _check(self, known: Captured, batch: Any, loss: Tensor) -> None:
        """See whether the graph says what the plain step has just said."""
        wanted = [loss, *(p.grad for p in self.parameters)]
        found = [self._replay(known, batch), *(p.grad for p in self.parameters)]
        known.checked += 1
        if not same(wanted, found):
            self.captured, self.refused = None, "loss or gradients of the graph are not the plain step's"


@contextmanager
def _aside(stream: Any) -> Iterator[None]:
    """Run a block on another stream, after everything before it and before everything after."""
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream().wait_stream(stream)


def tensors(batch: Any) -> list[Tensor | None]:
    """Fields of a batch, in order."""
    return [getattr(batch, field.name) for field in fields(batch)]


def moved(batch: Any, device: str, copy: bool = False) -> Any:
    """Put a batch on a device."""
    rows = [None if x is None else x.to(device, copy=copy) for x in tensors(batch)]
    return type(batch)(*rows)


def shapes(batch: Any) -> list[torch.Size | None]:
    """Shapes of its fields."""
    return [None if x is None else x.shape for x in tensors(batch)]


def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    """Whether tensors agree, each within `TOLERANCE` of its own norm and of the largest one's."""
    if [x is None for x in one] != [x is None for x in other]:
        return False
    pairs = [(x, y) for x, y in zip(one, other, strict=True) if x is not None and y is not None]
    if not pairs:
        return True
    sizes = torch.stack([x.detach().float().norm() for x, _ in pairs])
    gaps = torch.stack([(x.detach().float() - y.detach().float()).norm() for x, y in pairs])
    # a gradient that is nearly nothing is all rounding; the loss, the first, stands for itself
    near = gaps <= TOLERANCE * (sizes + sizes[1:].max() if len(pairs) > 1 else sizes)
    return bool(near.all() and gaps[0] <= TOLERANCE * sizes[0])
