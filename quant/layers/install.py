"""Put quantized layers into a model, take them out again, switch between the two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from quant.denoisers.families import family_of
from quant.errors import InputError
from quant.formats.schedule import Clock
from quant.layers.attention import attention_watchers, remove_attention_
from quant.layers.encoded import LayerResult
from quant.layers.quantized import QuantLayer, make
from quant.layers.replaced import exchange_
from quant.layers.states import KEY, check_state

_STATE = "_quant_state"
_GUARDS = "_quant_guards"


@dataclass
class QuantState:
    """What a quantized model carries besides its layers."""

    ledger: Any
    clock: Clock
    hook: Any
    originals: dict[str, Tensor] = field(default_factory=dict)
    """Parameters outside the layers as they were before a method trained them."""


def check_module(model: object) -> None:
    """Raise `InputError` if `model` is no torch module: a pipeline, a path, arguments in another order."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"the model must be a torch module, got {type(model).__name__}: of a pipeline give its denoiser, "
            "as pipe.transformer or pipe.unet"
        )


def state_of(model: nn.Module) -> QuantState | None:
    """Look up the quantization state of a root module; None if it has none."""
    check_module(model)
    return model.__dict__.get(_STATE)


def quant_layers(model: nn.Module) -> dict[str, QuantLayer]:
    """Every quantized layer by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantLayer)}


def refuse_quantized(model: nn.Module) -> None:
    """Raise if `model` or a part of it is quantized already, or has a LoRA on the layers to be replaced."""
    check_module(model)
    _refuse_loras(model)
    refuse_adapters(model)
    layers = quant_layers(model)
    if layers:
        raise InputError(
            f"the model is already quantized ({len(layers)} layers, the first is {next(iter(layers))!r}): "
            "call quant.restore_(model) first"
        )


def refuse_adapters(model: nn.Module) -> None:
    """Raise if peft has put adapters into `model`: their factors would be quantized like layers."""
    named = model.named_modules()
    wrapped = [name for name, module in named if isinstance(getattr(module, "base_layer", None), nn.Module)]
    if wrapped:
        raise InputError(
            f"the model has a peft adapter ({len(wrapped)} layers, the first is {wrapped[0]!r}): merge it "
            "with model.fuse_lora() and take it out with model.unload_lora(), or take it out only and attach "
            "its file afterwards with quant.attach_lora"
        )


def _refuse_loras(model: nn.Module) -> None:
    attached = model.__dict__.get("_quant_loras")
    if attached:
        raise InputError(
            f"LoRA {next(iter(attached))!r} is attached to layers that would be replaced: call "
            "quant.detach_lora(model) first, and attach it again afterwards"
        )


def install_(
    model: nn.Module, results: dict[str, LayerResult], keep_originals: bool = True,
    tensors: dict[str, Tensor] | None = None,
) -> QuantState:  # fmt: skip
    """Replace layers by quantized ones; everything is built before the first one is swapped.

    `tensors` are new values of other parameters, by name.
    """
    clock = Clock(family_of(model).timestep_unit)
    modules = dict(model.named_modules())
    made = {
        id(modules[name]): make(modules[name], result, clock, keep_originals)
        for name, result in results.items()
    }
    _swap(model, made)
    per_step = any(
        r.activation is not None and r.activation.schedule.kind == "timestep" for r in results.values()
    )
    hook = model.register_forward_pre_hook(clock.hook, with_kwargs=True) if per_step else None
    before = exchange_(model, tensors or {})
    state = QuantState(None, clock, hook, before if keep_originals else {})
    model.__dict__[_STATE] = state
    model.__dict__[_GUARDS] = [
        model.register_load_state_dict_pre_hook(_check_states),
        model.register_state_dict_post_hook(_describe_attention),
    ]
    return state


def unguard_(model: nn.Module) -> None:
    """Take the hooks of state dictionaries away."""
    for guard in model.__dict__.pop(_GUARDS, []):
        guard.remove()


def _attention(model: nn.Module) -> str:
    """Describe how attention is rounded, which no tensor of the state says; empty: it is not."""
    formats = {name: watcher.look.format for name, watcher in attention_watchers(model).items()}  # type: ignore
    shown = {name: fmt.model_dump(mode="json") for name, fmt in formats.items()}
    return json.dumps(shown, sort_keys=True) if shown else ""


def _describe_attention(module: nn.Module, state: Any, prefix: str, metadata: dict[str, Any]) -> None:
    """Put the description beside a model's state; a hook of PyTorch's."""
    metadata[KEY] = _attention(module)


def _check_states(module: nn.Module, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
    """Check a model's attention and every quantized layer before the first tensor is loaded."""
    if KEY in metadata and metadata[KEY] != _attention(module):
        raise InputError(
            "the state is of a model whose attention is rounded in another way, which no tensor says: load "
            "the state of a model that was quantized with the same recipe and recording, or use quant.load"
        )
    every = getattr(state, "_metadata", None) or {}
    for name, layer in quant_layers(module).items():
        check_state(layer, state, f"{prefix}{name}.", every.get(f"{prefix}{name}", {}))


def _swap(model: nn.Module, replacement: dict[int, Any]) -> None:
    """Swap children by identity, under every name they are reachable by."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in replacement:
                parent._modules[name] = replacement[id(child)]


def restore_(model: nn.Module) -> nn.Module:
    """Put the full-precision layers back, in place.

    Raises
    ------
    InputError
        The model is not quantized, or was loaded from codes and has no full-precision layers.
    """
    layers = quant_layers(model)
    if not layers:
        raise InputError("the model is not quantized: there is nothing to restore")
    _refuse_loras(model)
    bare = [name for name, layer in layers.items() if layer.original is None]
    if bare:
        raise InputError(
            f"layer {bare[0]!r} was loaded from codes: load the full-precision model to get it back"
        )
    _swap(model, {id(layer): layer.original for layer in layers.values()})
    remove_attention_(model)
    state = model.__dict__.pop(_STATE, None)
    if state is not None:
        exchange_(model, state.originals)
        if state.hook is not None:
            state.hook.remove()
    unguard_(model)
    return model


@contextmanager
def enabled(model: nn.Module, on: bool = True) -> Iterator[nn.Module]:
    """Run with quantization on or off (A/B on one model), and put the switches back."""
    layers = list(quant_layers(model).values())
    if not on and any(layer.original is None for layer in layers):
        raise InputError("the model was loaded from codes: there is no full-precision model to switch to")
    switches: list[Any] = [*layers, *attention_watchers(model).values()]
    before = [switch.active for switch in switches]
    state = state_of(model)
    # a switch inside a switch: what is off already has its parameters back
    trained = exchange_(model, state.originals) if state and not on and any(before) else {}
    try:
        for switch in switches:
            switch.active = on
        yield model
    finally:
        exchange_(model, trained)
        for switch, value in zip(switches, before, strict=True):
            switch.active = value


@contextmanager
def use_backend(model: nn.Module, backend: str) -> Iterator[nn.Module]:
    """Run the layers "simulated" or on their codes through "kernels", and switch back."""
    if backend not in ("simulated", "kernels"):
        raise InputError(f"unknown backend {backend!r}, allowed: simulated, kernels")
    layers = list(quant_layers(model).values())
    before = [layer.backend for layer in layers]
    try:
        for layer in layers:
            layer.backend = backend
        yield model
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.backend = value


@contextmanager
def installed(model: nn.Module, results: dict[str, LayerResult]) -> Iterator[nn.Module]:
    """Quantize for a while: for methods that need the partly quantized model to find the next layer."""
    install_(model, results)
    try:
        yield model
    finally:
        restore_(model)
