"""Norms and activations that layers do themselves while they quantize: the 16-bit result is never written.

A norm or an activation hands its result to layers that quantize it at once. Where all of those run natively,
it hands its input on instead, and each layer does its work inside the quantizer (`kernels.rows.before`), from
the same numbers and rounded to the same type. What is done where is said for each layer (`Wiring.words`), and
why not where it is not.

Blocks that are known are those of diffusers: ``BasicTransformerBlock`` (U-Nets, PixArt) with its
``FeedForward``, and ``ResnetBlock2D``. A hook that somebody adds later, on a layer, on a module that hands
its input on or on one between them, sees what it would have seen: the work goes back first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from quant.layers.lowbit import before as befores
from quant.layers.lowbit import group_norm
from quant.layers.native.fits import PRODUCTS
from quant.layers.native.run import op_of
from quant.layers.quantized import QuantLayer

PROCESSORS = ("AttnProcessor", "AttnProcessor2_0", "FusedAttnProcessor2_0")
"""Attention that hands its input to its layers as it is."""
WORDS = {
    "layer_norm": "layer norm", "geglu": "GEGLU", "gelu": "GELU", "gelu_tanh": "GELU",
    "group_norm_silu": "group norm and SiLU",
}  # fmt: skip
TAKING = (*PRODUCTS, "conv int8")
"""Operations whose quantizer can do something first."""
IMAGES = 4
"""Axes of a batch of images."""
MOVED = "_moved_by_producer"
"""Where a module that hands its input on keeps the `Producer`."""
MOST = 2048
"""Columns up to which it pays: wider rows do not stay in registers, and two looks do the work twice."""


@dataclass(frozen=True)
class Producer:
    """What a layer does to its input first.

    Attributes
    ----------
    kind : str
        Of `kernels.rows.before`, or "group_norm_silu".
    module : torch.nn.Module
        Whose work that is.
    moved : tuple of torch.nn.Module
        All modules that hand their input on since, and go back together.
    layers : tuple of QuantLayer
        All layers that do their work.
    between : tuple of torch.nn.Module
        Modules that a layer's input passes on its way there: who looks at one of them wants the work done.
    """

    kind: str
    module: nn.Module
    moved: tuple[nn.Module, ...] = field(default=(), repr=False, compare=False)
    layers: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    between: tuple[nn.Module, ...] = field(default=(), repr=False, compare=False)

    def give_back(self) -> None:
        """Let the modules do their own work again."""
        for module in self.moved:
            module.__dict__.pop("forward", None)
            module.__dict__.pop(MOVED, None)
        for layer in self.layers:
            layer.producer = None

    def plain(self, x: Tensor) -> Tensor:
        """Do it in torch, as the module would."""
        functional, module = nn.functional, self.module
        if self.kind == "layer_norm":
            norm: Any = module
            return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        if self.kind == "group_norm_silu":
            group: Any = module
            return functional.silu(
                functional.group_norm(x, group.num_groups, group.weight, group.bias, group.eps)
            )
        if self.kind == "geglu":
            value, gate = x.chunk(2, -1)
            return value * functional.gelu(gate)
        return functional.gelu(x, approximate="tanh" if self.kind == "gelu_tanh" else "none")

    def before(self, x: Tensor) -> befores.Before:
        """Describe it to the quantizer of (..., K), or of images (B, H W, C)."""
        if self.kind == "group_norm_silu":
            group: Any = self.module
            weight, bias = group.weight.detach(), group.bias.detach()
            return group_norm.group_norm(x, group.num_groups, weight, bias, group.eps, path="triton")
        if self.kind != "layer_norm":
            return befores.Before(self.kind)
        norm: Any = self.module
        rows = x.numel() // x.shape[-1]
        return befores.Before(self.kind, norm.weight.detach()[None], norm.bias.detach()[None], rows, norm.eps)


@dataclass
class Wiring:
    """What was moved and what was not.

    Attributes
    ----------
    words : dict of str to str
        What each layer does first.
    kept : dict of str to str
        What stayed with the module before a layer, and why, by the layer's name.
    """

    words: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def move(
        self, names: dict[nn.Module, str], producer: Producer, consumers: list[Any], forward: Any
    ) -> bool:
        """Let layers do the work of a module, if all of them can; whether they do."""
        if why := _obstacle(producer, consumers):
            self.keep(names, WORDS[producer.kind], consumers, why)
            return False
        if not producer.moved:
            producer = replace(producer, moved=(producer.module,), layers=tuple(consumers))
        producer.module.__dict__["forward"] = MethodType(forward, producer.module)
        producer.module.__dict__[MOVED] = producer
        for layer in consumers:
            layer.producer = producer
            self.words[names[layer]] = WORDS[producer.kind]
        return True

    def keep(self, names: dict[nn.Module, str], what: str, consumers: list[Any], why: str) -> None:
        """Say of layers why something before them stayed where it was."""
        for layer in consumers:
            if isinstance(layer, QuantLayer):
                self.kept[names[layer]] = f"{what} before it in torch: {why}"


def wire_(model: nn.Module) -> Wiring:
    """Move norms and activations of known blocks into the layers that quantize their results, in place."""
    unwire_(model)  # what was moved before is found again
    names = {module: name for name, module in model.named_modules()}
    found = Wiring()
    for block in model.modules():
        if not type(block).__module__.startswith("diffusers."):
            continue  # others' classes of the same names do other things
        if type(block).__name__ == "BasicTransformerBlock":
            if block.norm_type == "layer_norm" and getattr(block, "pos_embed", None) is None:
                for norm, between, consumers in _norms(block):
                    found.move(names, Producer("layer_norm", norm, between=between), consumers, _handed_on)
            else:
                behind = [*_inputs(block.attn1, crossed=False), getattr(block.ff.net[0], "proj", None)]
                found.keep(names, "adaptive norm", behind, "its gain comes from outside the module")
        elif type(block).__name__ == "FeedForward":
            _wire_activation(block, names, found)
        elif type(block).__name__ == "ResnetBlock2D":
            _wire_images(block, names, found)
    return found


def wired(model: nn.Module) -> bool:
    """Whether anything was moved."""
    return any(getattr(module, "producer", None) is not None for module in model.modules())


def unwire_(model: nn.Module) -> None:
    """Put everything back."""
    for module in model.modules():
        producer = getattr(module, "producer", None)
        if isinstance(producer, Producer):
            producer.give_back()


def _seen_meanwhile(module: nn.Module) -> bool:
    """Whether somebody looks at a module that was moved; the work of all that moved with it goes back then.

    A compiled forward is what it was when it was compiled, hooks included.
    """
    if torch.compiler.is_compiling():
        return False
    producer = module.__dict__[MOVED]
    if not any(map(_looked_at, (*producer.moved, *producer.between))):
        return False
    producer.give_back()
    return True


def _handed_on(module: nn.Module, x: Tensor) -> Tensor:
    return module.forward(x) if _seen_meanwhile(module) else x


def _projected(module: Any, x: Tensor, *rest: Any, **named: Any) -> Tensor:
    return module.forward(x, *rest, **named) if _seen_meanwhile(module) else module.proj(x)


def hooked(module: nn.Module) -> bool:
    """Whether somebody sees what a module takes or gives, or has put another forward in its place."""
    return _looked_at(module) or "forward" in module.__dict__


def _looked_at(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _norms(block: Any) -> Iterator[tuple[nn.Module, tuple[nn.Module, ...], list[Any]]]:
    yield block.norm1, (block.attn1,), _inputs(block.attn1, crossed=bool(block.only_cross_attention))
    if block.attn2 is not None:
        yield block.norm2, (block.attn2,), _inputs(block.attn2, crossed=True)
    between = (block.ff, block.ff.net[0])
    seen = any(map(hooked, between))
    yield block.norm3, between, [] if seen else [getattr(block.ff.net[0], "proj", None)]


def _inputs(attention: Any, crossed: bool) -> list[Any]:
    """Layers that an attention hands its input to; none where it does more with it."""
    more = (
        attention.group_norm is not None or attention.spatial_norm is not None
        or attention.residual_connection or type(attention.processor).__name__ not in PROCESSORS
        or hooked(attention)
    )  # fmt: skip
    if more:
        return []
    if crossed and attention.cross_attention_dim == attention.query_dim:
        return []  # keys and values are of a context or, without one, of the same input: a call decides
    if getattr(attention, "fused_projections", False) and not crossed:
        return [attention.to_qkv] if hasattr(attention, "to_qkv") else []
    return [attention.to_q] if crossed else [attention.to_q, attention.to_k, attention.to_v]


def _wire_activation(feed: Any, names: dict[nn.Module, str], found: Wiring) -> None:
    first, kind = feed.net[0], type(feed.net[0]).__name__
    if kind not in ("GEGLU", "GELU"):
        return
    if kind == "GELU":
        kind = "gelu_tanh" if first.approximate == "tanh" else "gelu"
    between = [m for m in feed.net[1:] if not isinstance(m, nn.Dropout) or m.p > 0]
    consumers = between if len(between) == 1 else []
    dropped = tuple(m for m in feed.net[1:] if isinstance(m, nn.Dropout))
    found.move(names, Producer(kind.lower(), first, between=dropped), consumers, _projected)


def _wire_images(block: Any, names: dict[nn.Module, str], found: Wiring) -> None:
    """Move both norms and their SiLU, or none: a module does that SiLU for the time embedding, too."""
    pairs = [(block.norm1, block.conv1), (block.norm2, block.conv2)]
    moved, layers = (block.norm1, block.norm2, block.nonlinearity), (block.conv1, block.conv2)
    between = (block.dropout,)
    producers = [(Producer("group_norm_silu", norm, moved, layers, between), [conv]) for norm, conv in pairs]
    why = next((why for pair in producers if (why := _obstacle(*pair))), "")
    if block.time_embedding_norm != "default" or block.upsample or block.downsample or block.dropout.p > 0:
        why = "something comes between it and the convolution"
    elif type(block.nonlinearity) is not nn.SiLU or hooked(block.nonlinearity):
        why = "its activation is not a plain SiLU"
    if why:
        found.keep(names, WORDS["group_norm_silu"], [conv for _, conv in pairs], why)
        return
    for producer, consumers in producers:
        found.move(names, producer, consumers, _handed_on)
    block.nonlinearity.__dict__["forward"] = MethodType(_silu_of_rows, block.nonlinearity)


def _silu_of_rows(_: nn.Module, x: Tensor) -> Tensor:
    return x if x.ndim == IMAGES else nn.functional.silu(x)


def _obstacle(producer: Producer, consumers: list[Any]) -> str:
    module = producer.module
    if producer.kind == "layer_norm":
        plain = type(module) is nn.LayerNorm
        if not plain or module.weight is None or module.bias is None:
            return f"no kernel for {type(module).__name__} without gain and offset"
    if producer.kind == "group_norm_silu" and (type(module) is not nn.GroupNorm or module.weight is None):
        return f"no kernel for {type(module).__name__} without gain and offset"
    if not consumers:
        return "its result goes elsewhere, too"
    if any(hooked(m) for m in (module, *consumers)):
        return "hooks look at it"
    for layer in consumers:
        if not isinstance(layer, QuantLayer) or layer.backend != "kernels" or op_of(layer) not in TAKING:
            return "a layer that takes its result does not quantize it natively"
        if producer.kind != "group_norm_silu" and layer.weight_shape[1] > MOST:
            return f"of {layer.weight_shape[1]} columns it would be done twice; up to {MOST} it pays"
        if layer.producer is not None:
            return "a layer that takes its result does something else first"
    return ""
