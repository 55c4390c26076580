"""Multiply-accumulates of each layer in one forward, counted on the meta device (no arithmetic is done)."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from quant import families

log = logging.getLogger(__name__)

Example = tuple[tuple[Any, ...], dict[str, Any]]


def count_macs(model: nn.Module, example: Example | None) -> tuple[dict[str, int], str]:
    """MACs by layer name, and the rule they were counted by.

    Layers that the forward does not reach count 0. Without an example, or where the model cannot run on
    the meta device, the dictionary is empty and the rule says so.
    """
    example = families.example(model) if example is None else example
    if example is None:
        return {}, "not measured: pass example=((args...), {kwargs}) to count multiply-accumulates"
    macs: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            macs[name] = 0
            handles.append(module.register_forward_hook(_counter(macs, name)))
    tensors = {n: t.detach().to("meta") for n, t in [*model.named_parameters(), *model.named_buffers()]}
    args, kwargs = tree_map(_to_meta, example)
    try:
        with torch.no_grad():
            torch.func.functional_call(model, tensors, args, kwargs)
    except Exception as error:  # a model that looks at values cannot run without any: the rule says so
        log.info("multiply-accumulates not counted: %s", error)
        return {}, f"not measured: the model does not run on the meta device ({type(error).__name__})"
    finally:
        for handle in handles:
            handle.remove()
    first = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
    return macs, f"counted over one forward, first input {tuple(first.shape) if first is not None else '()'}"


def _counter(macs: dict[str, int], name: str) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = getattr(module, "weight")  # noqa: B009 - a Tensor attribute mypy cannot see
        # every output element is a dot product over one output channel's weights
        macs[name] += output.numel() * (weight.numel() // weight.shape[0])

    return hook


def _to_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
