"""Multiply-accumulates of each layer in one forward, counted on the meta device (no arithmetic is done)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Example = tuple[tuple[Any, ...], dict[str, Any]]


def example_inputs(model: nn.Module, batch: int = 1) -> Example | None:
    """Make inputs of one forward for the diffusers denoisers from their config; None for other models."""
    config = getattr(model, "config", None)
    get = (
        config.get
        if isinstance(config, Mapping)
        else (lambda key, default=None: getattr(config, key, default))
    )
    channels, side = get("in_channels"), get("sample_size")
    if not isinstance(channels, int) or side is None:
        return None
    height, width = (side, side) if isinstance(side, int) else tuple(side)
    args: tuple[Any, ...] = (torch.zeros(batch, channels, height, width), torch.zeros(batch))
    name = type(model).__name__
    if name == "UNet2DModel":
        return args, {}
    if name == "DiTTransformer2DModel":
        labels = torch.zeros(batch, dtype=torch.long)
        return (args[0],), {"timestep": torch.zeros(batch, dtype=torch.long), "class_labels": labels}
    if name == "PixArtTransformer2DModel":
        width = get("caption_channels") or get("cross_attention_dim")
        added = {"resolution": None, "aspect_ratio": None}
        condition = torch.zeros(batch, 17, width)
        return (args[0],), {
            "encoder_hidden_states": condition,
            "timestep": args[1],
            "added_cond_kwargs": added,
        }
    width = get("encoder_hid_dim") or get("cross_attention_dim")
    if name == "UNet2DConditionModel" and isinstance(width, int) and not get("addition_embed_type"):
        return args, {"encoder_hidden_states": torch.zeros(batch, 17, width)}
    return None


def count_macs(model: nn.Module, example: Example | None) -> tuple[dict[str, int], str]:
    """MACs by layer name, and the rule they were counted by.

    Layers that the forward does not reach count 0. Without an example, or where the model cannot run on
    the meta device, the dictionary is empty and the rule says so.
    """
    example = example_inputs(model) if example is None else example
    if example is None:
        return {}, "not measured: pass example=((args...), {kwargs}) to count multiply-accumulates"
    macs: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            macs[name] = 0
            handles.append(module.register_forward_hook(_counter(macs, name)))
    tensors = {n: t.detach().to("meta") for n, t in [*model.named_parameters(), *model.named_buffers()]}
    args = tuple(_to_meta(a) for a in example[0])
    kwargs = {key: _to_meta(value) for key, value in example[1].items()}
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
