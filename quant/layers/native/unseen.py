"""What a CUDA graph would not see: who looks on, a model that changed, numbers that Python waits for."""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quant.layers.attention import Rounding, Watcher, attention_watchers
from quant.layers.install import state_of
from quant.layers.quantized import QuantLayer

PLAIN = (Tensor, bool, int, float, str, type(None))
"""Arguments that a graph can be kept for: tensors are copied in, of the others each value has its graph."""
_BOUND = ("forward", "_compiled_call_impl")
"""Attributes of a model that hold it."""
_INDEXING = (
    torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default,
)  # fmt: skip
_COPYING = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


def parts_of(model: nn.Module) -> list[nn.Module]:
    """Every module, the model first; `nn.Module.modules` takes a tenth of a small denoiser's forward."""
    found, known = [model], {model}
    for module in found:
        for child in module._modules.values():
            if child is not None and child not in known:
                known.add(child)
                found.append(child)
    return found


class Snapshot:
    """What a model computes with: every attribute of its modules, and how often each tensor was written to.

    It holds what it saw, so that nothing else can lie where that lay, but not the model itself.

    Parameters
    ----------
    model : torch.nn.Module
    parts : list of torch.nn.Module
        Of `parts_of`.
    """

    def __init__(self, model: nn.Module, parts: list[nn.Module]) -> None:
        self.things: list[Any] = [v for k, v in model.__dict__.items() if k not in _BOUND]
        tensors: list[Tensor] = []
        for module in parts:
            if isinstance(module, QuantLayer):
                self.things += [v for k, v in module.__dict__.items() if k != "last_path"]  # a fresh word
            elif module is not model:
                self.things += module.__dict__.values()
            if module._parameters:
                tensors += [t for t in module._parameters.values() if t is not None]
            if module._buffers:
                tensors += [t for t in module._buffers.values() if t is not None]
        self.things += tensors
        self.states: list[Any] = [t.data_ptr() for t in tensors]
        self.states += [None if t.is_inference() else t._version for t in tensors]
        self.states += [(watcher.active, id(watcher.look)) for watcher in attention_watchers(model).values()]

    def same(self, other: Snapshot) -> bool:
        """Whether nothing was replaced or written to in between."""
        return (
            len(self.things) == len(other.things)
            and all(map(is_, self.things, other.things))
            and self.states == other.states
        )


def onlooker(model: nn.Module, parts: list[nn.Module]) -> str:
    """Why a forward does more than a graph of it would; empty if it does not.

    Hooks are LoRAs, watermarks, recorders and inspectors, or move weights; a graph would leave them out. Only
    those that round attention do what a graph repeats.
    """
    state = state_of(model)
    if state is not None and state.hook is not None:
        return "the recipe picks scales by the timestep's value in Python"
    if getattr(model, "_compiled_call_impl", None) is not None:
        return "the model was compiled by model.compile()"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode looks at every operation"
    replaced, moved = [], set()
    for module in parts:
        if (module._forward_pre_hooks or module._forward_hooks) and not _only_rounding(module):
            return f"a hook (of a LoRA, a recorder, an inspector) is on {_name(model, module)}"
        if "forward" in module.__dict__:
            replaced.append(module)
        producer = module.__dict__.get("producer")
        if producer is not None:
            moved.update(producer.moved)
    foreign = [module for module in replaced if module not in moved and module is not model]
    return f"the forward of {_name(model, foreign[0])} was replaced" if foreign else ""


def _only_rounding(module: nn.Module) -> bool:
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    owners = [getattr(hook, "__self__", None) for hook in hooks]
    return all(isinstance(owner, Watcher) and isinstance(owner.look, Rounding) for owner in owners)


def _name(model: nn.Module, wanted: nn.Module) -> str:
    return next(name or "the model" for name, module in model.named_modules() if module is wanted)


def misfit(flat: list[Any]) -> str:
    """Why a call with these arguments, flattened, has no graph; empty if it can have one."""
    if torch.is_grad_enabled():
        return "gradients are asked for"
    places = sorted({str(value.device) for value in flat if isinstance(value, Tensor)})
    if len(places) > 1:
        return f"arguments lie on {' and '.join(places)}"
    odd = next((value for value in flat if not isinstance(value, PLAIN)), None)
    return "" if odd is None else f"an argument is a {type(odd).__name__}, which is not a tensor or a number"


class Unrepeatable(Exception):
    """A forward does what a graph would do once, or cannot hold."""


class Repeatable(TorchDispatchMode):
    """In a ``with``: raise `Unrepeatable` at an operation that a graph would not repeat.

    These are numbers or shapes that Python reads off the device, random numbers, and copies between devices,
    which a graph would not wait for. Single numbers on the CPU are constants: no argument lies there.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = tree_leaves((args, kwargs))
        if torch.Tag.data_dependent_output in func.tags:
            raise Unrepeatable(f"Python reads a number off the device ({func})")
        if _sizes_unknown(func, args):
            raise Unrepeatable(f"a shape depends on the numbers ({func})")
        if any(isinstance(value, Generator) for value in given) or _draws(func):
            raise Unrepeatable(f"it draws random numbers ({func})")
        copies = func in _COPYING
        places = {str(v.device) for v in given if isinstance(v, Tensor) and (v.ndim or copies)}
        out = None if len(places) > 1 else func(*args, **(kwargs or {}))
        if copies and out is not None:  # attention gives the CPU's state of a generator, which is no copy
            places.add(str(out.device))
        if len(places) > 1:
            raise Unrepeatable(f"it copies between {' and '.join(sorted(places))} ({func})")
        return out


def _sizes_unknown(func: Any, args: tuple) -> bool:
    """Whether the size of something depends on numbers; indexing by integers is tagged so, but does not."""
    if func in _INDEXING:
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _draws(func: Any) -> bool:
    """Whether an operation is random; attention is tagged so for its dropout, which inference has none of."""
    attends = "attention" in str(func) or "_sdp_" in str(func)
    return torch.Tag.nondeterministic_seeded in func.tags and not attends
