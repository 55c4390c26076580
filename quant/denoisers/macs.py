"""Multiply-accumulates and input sizes of each layer, found in one forward.

It runs on the meta device, where no arithmetic is done, unless the model is so small that the arithmetic is
done sooner: on the meta device every operation is taken apart in Python first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from quant.denoisers import families
from quant.denoisers.families import Example
from quant.denoisers.inventory import ASSUMED_TIMESTEPS, LAYERS, InputSize

log = logging.getLogger(__name__)
SMALL = (16_000_000, 16_384)
"""Parameters, and numbers in the inputs, up to which a forward on the CPU is the faster one."""


def count_macs(model: nn.Module, example: Example | None) -> tuple[dict[str, int], str]:
    """MACs by layer name, and the rule they were counted by.

    Layers that the forward does not reach count 0. Without an example, or where the model cannot run on
    the meta device, the dictionary is empty and the rule says so.
    """
    example = families.example(model, device="meta") if example is None else example
    if example is None:
        return {}, "not measured: pass example=((args...), {kwargs}) to count multiply-accumulates"
    macs: dict[str, int] = {}

    def count(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = getattr(module, "weight")  # noqa: B009 - a Tensor attribute mypy cannot see
        # every output element is a dot product over one output channel's weights
        macs[name] = macs.get(name, 0) + output.numel() * (weight.numel() // weight.shape[0])

    try:
        names = _watch(model, example, count)
    except Exception as error:  # a model that looks at values cannot run without any: the rule says so
        log.info("multiply-accumulates not counted: %s", error)
        return {}, f"not measured: the model does not run on the meta device ({type(error).__name__})"
    first = next((a for a in (*example[0], *example[1].values()) if isinstance(a, Tensor)), None)
    size = tuple(first.shape) if first is not None else "()"
    return {name: macs.get(name, 0) for name in names}, f"counted over one forward, first input {size}"


def input_sizes(model: nn.Module, trajectories: Any) -> dict[str, InputSize] | None:
    """Find the tokens or pixels that each layer will see, on the meta device; None where that cannot be.

    Parameters
    ----------
    model : torch.nn.Module
    trajectories : quant.Trajectories or None
        Sizes of its samples and conditions count; without one, those of the model's config.
    """
    timesteps, example = ASSUMED_TIMESTEPS, None
    if trajectories is not None:
        timesteps, sample = len(set(trajectories.timesteps)), trajectories.sample(0)
        condition = sample["condition"][None] if "condition" in sample else None
        example = families.forward_arguments(model, sample["x"][:1], torch.zeros(1), condition)
    else:
        example = families.example(model, device="meta")
    if example is None:
        return None
    positions: dict[str, int] = {}

    def look(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shape = inputs[0].shape
        positions[name] = math.prod(shape[1:-1] if isinstance(module, nn.Linear) else shape[2:])

    try:
        names = _watch(model, example, look)
    except Exception as error:
        log.info("input sizes not found: %s", error)
        return None
    return {name: InputSize(positions.get(name), timesteps, trajectories is None) for name in names}


def _watch(model: nn.Module, example: Example, see: Callable[..., None]) -> list[str]:
    """Run once with ``see(name, module, inputs, output)`` after every Linear and Conv2d.

    Everything is taken as float32: sizes do not depend on the dtype, and inputs of another dtype than the
    model's would stop it. Neither buffers nor the random state of the process change.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LAYERS)}
    handles = [module.register_forward_hook(partial(see, name)) for name, module in layers.items()]
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    move = _to_cpu if _small([*parameters.values(), *buffers.values()], example) else _to_meta
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            moved = {name: move(tensor) for name, tensor in parameters.items()}
            # exchanging a tensor takes as long as a small layer: what is where it has to be stays
            tensors = {name: there for name, there in moved.items() if there is not parameters[name]}
            tensors |= {name: move(tensor.clone()) for name, tensor in buffers.items()}
            args, kwargs = tree_map(move, example)
            torch.func.functional_call(model, tensors, args, kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return list(layers)


def _small(held: list[Tensor], example: Example) -> bool:
    given = sum(leaf.numel() for leaf in tree_leaves(example) if isinstance(leaf, Tensor))
    return (
        all(tensor.device.type in ("cpu", "meta") for tensor in held)
        and sum(tensor.numel() for tensor in held) <= SMALL[0]
        and given <= SMALL[1]
    )


def _to_meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to("meta", torch.float32 if value.is_floating_point() else value.dtype)


def _to_cpu(value: Any) -> Any:
    """Float32 on the CPU; what lies on the meta device becomes zeros."""
    if not isinstance(value, Tensor):
        return value
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    return torch.zeros(value.shape, dtype=dtype, device="cpu") if value.is_meta else value.to("cpu", dtype)
