"""A sampler's denoiser from CUDA graphs: as it is launched one by one, bit for bit, or launched so.

Python takes longer to launch the small kernels of a natively quantized denoiser than they run. Inputs of one
signature (shapes, types, structure, numbers) come back at every step, so the second such call is captured,
and a graph is replayed once it has given the bytes of two plain forwards, at two timesteps. Everything that
a graph would not see keeps it away, and the ledger says why.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from quant.layers.install import quant_layers, state_of
from quant.layers.native.graphs import Graph, shape_of
from quant.layers.native.unseen import Repeatable, Snapshot, Unrepeatable, misfit, onlooker, parts_of

MOST = 4
"""Signatures that a model's graphs are kept for; the one that was not used for longest goes."""
CHECKS = 2
"""Plain forwards whose bytes a graph has to give before it is used."""
REPLAYED = "CUDA graph"
RARE = f"no shapes of inputs came back more than {CHECKS} times"
ASKED = "it was asked for"
FOREIGN = "the forward of the model was replaced"

Forward = Callable[..., Any]
Capture = Callable[[Forward, list[Any], Any], Callable[[list[Any]], Any]]


@dataclass
class Signature:
    """Calls of one signature: how many were plain, their graph, and how many forwards it agreed with.

    `numbers` are the timesteps that it was captured with.
    """

    plain: int = 0
    graph: Callable[[list[Any]], Any] | None = None
    numbers: list[Tensor] = field(default_factory=list)
    checked: int = 0


class Replays:
    """Graphs of one model.

    Parameters
    ----------
    capture : callable, optional
        ``capture(forward, flat, spec)``; `quant.layers.native.graphs.Graph` if left out.

    Attributes
    ----------
    replayed, launched : int
        Calls so far from a graph and without.
    why : str
        Why the last call without a graph will not get one; empty if it only came too early.
    plainly : str
        Why no call until the next `begin` is looked at; empty: each is.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self.capture = capture or partial(Graph, warm_ups=1)  # two plain calls came before
        self.known: OrderedDict[Any, Signature] = OrderedDict()
        self.seen: Snapshot | None = None
        self.refused = self.plainly = ""
        self.replayed = self.launched = 0
        self.why = ""

    @property
    def words(self) -> str:
        """How the kernels were launched, for ledgers."""
        if not self.replayed:
            return f"launched one by one, because {self.why or RARE}"
        if not self.why:
            return REPLAYED
        calls = self.replayed + self.launched
        return f"{REPLAYED} in {self.replayed} of {calls} calls, the others one by one, because {self.why}"

    def begin(self, model: nn.Module) -> None:
        """Look at the model before some calls: is it what it was, and who looks at it."""
        parts = self._look(model)
        self.plainly = onlooker(model, parts) or self.refused

    def end(self, model: nn.Module) -> None:
        """Remember the model as these calls leave it."""
        self.seen = Snapshot(model, parts_of(model))

    def _look(self, model: nn.Module) -> list[nn.Module]:
        parts = parts_of(model)
        now = Snapshot(model, parts)
        if self.seen is None or not now.same(self.seen):
            self.known.clear()
            self.refused, self.seen = "", now
        return parts

    def call(self, model: nn.Module, forward: Forward, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Answer one call of the model, from a graph where that gives the same bytes."""
        flat, spec = tree_flatten((args, kwargs))
        if not self.plainly:
            self.plainly = onlooker(model, self._look(model))
        why = self.plainly or misfit(flat)
        if why:
            self.why = why
            self.launched += 1
            return forward(*args, **kwargs)
        key = (spec, _modes(), *map(shape_of, flat))
        one = self.known.setdefault(key, Signature())
        self.known.move_to_end(key)
        if len(self.known) > MOST:
            self.known.popitem(last=False)
        if one.graph is not None and one.checked >= CHECKS:
            self.replayed += 1
            return one.graph(flat)
        self.launched += 1
        out = self._plain(one, forward, flat, spec)
        self.seen = Snapshot(model, parts_of(model))  # a plain forward prepares layers
        return out

    def _plain(self, one: Signature, forward: Forward, flat: list[Any], spec: Any) -> Any:
        """Answer one by one; from the second call on, a graph has to say the same."""
        one.plain += 1
        args, kwargs = tree_unflatten(flat, spec)
        if one.plain == 1:
            return forward(*args, **kwargs)
        if one.graph is None:
            try:
                with Repeatable():
                    out = forward(*args, **kwargs)
            except Unrepeatable as error:
                self._refuse(str(error))
                return forward(*args, **kwargs)
            if not all(isinstance(value, Tensor) for value in tree_leaves(out)):
                self._refuse("its output holds more than tensors")
                return out
            try:
                one.graph, one.numbers = self.capture(forward, flat, spec), _numbers(flat)
            except RuntimeError as error:  # out of memory, or an operation that no graph takes
                self._refuse(f"no graph could be captured: {error}".splitlines()[0])
                return out
        else:
            out = forward(*args, **kwargs)
        if not _same_bytes(out, one.graph(flat)):
            self._refuse("a replay gave other numbers than a plain forward")
        elif not one.checked or not _same_bytes(one.numbers, _numbers(flat)):  # else it says nothing new
            one.checked += 1
        return out

    def _refuse(self, why: str) -> None:
        """Have no graphs of this model as it is."""
        self.known.clear()
        self.refused = self.plainly = self.why = why


def _numbers(flat: list[Any]) -> list[Tensor]:
    """Copy the timestep of each sample and what else is as small; all tensors if nothing is."""
    tensors = [value for value in flat if isinstance(value, Tensor)]
    return [value.clone() for value in [t for t in tensors if t.ndim <= 1] or tensors]


def _same_bytes(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(_bytes(a), _bytes(b)) for a, b in pairs
    )


def _bytes(value: Tensor) -> Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def _modes() -> tuple[Any, ...]:
    """Return what else decides how an operation is computed."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return (
        torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"), cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark,
        cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), cudnn.enabled,
        cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled(),
        cuda.cudnn_sdp_enabled(), cuda.matmul.allow_bf16_reduced_precision_reduction,
        cuda.matmul.allow_fp16_reduced_precision_reduction,
    )  # fmt: skip


_KEPT: WeakKeyDictionary[nn.Module, Replays] = WeakKeyDictionary()
"""Graphs of the models that are alive."""
_ASKED: WeakSet[nn.Module] = WeakSet()
"""Models whose kernels are to be launched one by one."""


@contextmanager
def replayed(model: nn.Module) -> Iterator[None]:
    """Let calls of a model that runs natively on a GPU come from graphs in a ``with``.

    Other models stay as they are. Graphs are kept until the model is released or changed. Its ledger says how
    its kernels were launched.
    """
    state = state_of(model)
    if state is None or not any(map(_native, quant_layers(model).values())):
        _KEPT.pop(model, None)
        yield
        return
    if isinstance(model.__dict__.get("forward"), _Replayed):
        yield  # inside another one
        return
    kept = _KEPT.setdefault(model, Replays())
    foreign = "forward" in model.__dict__
    if foreign or model in _ASKED:
        words = f"launched one by one, because {FOREIGN if foreign else ASKED}"
        yield
    else:
        kept.begin(model)
        model.__dict__["forward"] = _Replayed(kept, model)
        try:
            yield
        finally:
            del model.__dict__["forward"]
            kept.end(model)
            words = kept.words
    if state.ledger is not None:
        state.ledger.launches = words


@contextmanager
def launched(model: nn.Module) -> Iterator[None]:
    """Launch a model's kernels one by one in a ``with``, to compare."""
    _ASKED.add(model)
    try:
        yield
    finally:
        _ASKED.discard(model)


class _Replayed:
    """A model's forward meanwhile."""

    def __init__(self, kept: Replays, model: nn.Module) -> None:
        self.kept, self.model, self.forward = kept, model, model.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.kept.call(self.model, self.forward, args, kwargs)


def _native(layer: Any) -> bool:
    return layer.backend == "kernels" and layer.codes.is_cuda
