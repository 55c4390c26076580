"""Quantize attention scores and values of any model whose attention is scaled_dot_product_attention.

An attention module's forward runs under a mode that replaces PyTorch's fused attention by the plain formula,
with the softmax probabilities (and the values) going through quantizers. The module, its processor and its
arguments stay as they are, so it works for every processor that ends in that function: U-Nets, PixArt, joint
attention. `restore_` removes the hooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from quant.errors import InputError
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer

_HOOKS = "_quant_attention"
_FAR = -1000.0
"""Bias from which on a key counts as hidden: pipelines write -10000 for padding, nothing learned is near."""
Look = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""Gets probabilities, values, and which probabilities are of hidden keys (None: of none); returns two."""


class AttentionFormat(BaseModel):
    """What is rounded in one attention module."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    scores: Quantizer | None = Field(default=None, description="of the probabilities (batch, heads, q, k)")
    values: Quantizer | None = Field(default=None, description="of the values, one row a channel of a head")
    sink: int | None = Field(default=None, description="key whose probabilities stay in floating point")
    scale: float | None = Field(default=None, description="of a static schedule; none: from each image")
    keep_sums: bool = Field(default=False, description="a query's rounded probabilities sum to what they did")

    def quantize_scores(self, scores: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Round probabilities (batch, heads, q, k); the sink's column is the caller's, bit for bit.

        Hidden keys (padding, the future) stay 0, for which a logarithmic grid has no code: an engine skips
        them, and a hundred padded tokens at the smallest code would outweigh the prompt.
        """
        if self.scores is None:
            return scores
        params = None
        if self.scale is not None:
            params = {"scale": torch.full([1] * scores.ndim, self.scale, device=scores.device)}
        if self.sink is None:
            return self._round(self.scores, scores, hidden, params)
        rest = torch.arange(scores.shape[-1], device=scores.device) != self.sink
        out, some = scores.clone(), None if hidden is None else hidden[..., rest]
        out[..., rest] = self._round(self.scores, scores[..., rest], some, params)
        return out

    def _round(
        self, quantizer: Quantizer, scores: Tensor, hidden: Tensor | None, params: Params | None
    ) -> Tensor:
        """Round; a query's factor back to its sum is a row scale of the product with the values: free."""
        out = quantizer.fake(scores, "linear_input", params)
        if hidden is not None:
            out = out.masked_fill(hidden, 0.0)
        if not self.keep_sums:
            return out
        sums = out.sum(-1, keepdim=True).clamp(min=torch.finfo(out.dtype).tiny)  # all zero: stays so
        return out * (scores.sum(-1, keepdim=True) / sums)

    def quantize_values(self, values: Tensor) -> Tensor:
        """Round values (batch, heads, k, channels)."""
        if self.values is None:
            return values
        return self.values.fake(values.transpose(-1, -2), "linear_input").transpose(-1, -2)


def attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *, look: Look,
) -> Tensor:  # fmt: skip
    """scaled_dot_product_attention by its formula; `look` may change probabilities and values.

    Parameters
    ----------
    query, key, value : tensor of shape (batch, heads, tokens, channels)
    attn_mask, dropout_p, is_causal, scale, enable_gqa
        As PyTorch has them; dropout is left out.
    look : Look
        Gets float32 (or wider) probabilities (batch, heads, q, k).
    """
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    wide = torch.promote_types(query.dtype, torch.float32)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = query.to(wide) @ key.to(wide).transpose(-1, -2) * factor
    hidden: Tensor | None = None
    if is_causal:
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril().logical_not()
        logits = logits.masked_fill(hidden, -torch.inf)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            away = ~attn_mask
            logits = logits.masked_fill(away, -torch.inf)
        else:
            away = attn_mask <= _FAR
            logits = logits + attn_mask
        hidden = away if hidden is None else hidden | away
    scores = logits.softmax(-1)
    if hidden is not None:
        nothing = (logits == -torch.inf).all(-1, keepdim=True)  # a query that sees no key: 0, as in PyTorch
        scores = scores.masked_fill(nothing, 0.0)
        hidden = hidden.expand_as(logits)
        hidden = hidden & (nothing | ~hidden.all(-1, keepdim=True))  # all equally far: none is hidden
    scores, value = look(scores, value, hidden)
    return (scores @ value.to(wide)).to(query.dtype)


class _Mode(TorchFunctionMode):
    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look, self.used = look, False

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.used = True
            return attend(*args, **(kwargs or {}), look=self.look)
        return func(*args, **(kwargs or {}))


class Watcher:
    """Two hooks of one attention module: enter the mode before its forward, leave it after, come what may.

    Parameters
    ----------
    look : Look
    name : str, optional
        Of the module. With it a forward that asks for no scores is refused: its processor (or backend) goes
        another way, and nothing would be rounded.
    """

    def __init__(self, look: Look, name: str | None = None) -> None:
        self.look, self.name, self.active = look, name, True
        self.stack: list[_Mode] = []
        self.handles: list[Any] = []

    def attach(self, module: nn.Module) -> Watcher:
        """Register the hooks."""
        self.handles = [
            module.register_forward_pre_hook(self.enter),
            module.register_forward_hook(self.leave, always_call=True),
        ]
        return self

    def enter(self, module: nn.Module, args: Any) -> None:
        """Forward pre-hook."""
        if self.active:
            self.stack.append(_Mode(self.look))
            self.stack[-1].__enter__()

    def leave(self, module: nn.Module, args: Any, out: Any) -> None:
        """Forward hook, also after an exception."""
        if not self.stack:
            return
        mode = self.stack.pop()
        mode.__exit__(None, None, None)
        if self.name is not None and not mode.used and out is not None:  # None: it failed, and says why
            kind = type(getattr(module, "processor", module)).__name__
            raise InputError(
                f"attention {self.name!r} ({kind}) does not call scaled_dot_product_attention, so its scores "
                "cannot be rounded: use AttnProcessor2_0, or a recipe with attention='none'"
            )

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()


class Rounding:
    """What a quantized module's watcher does: round by a format."""

    def __init__(self, fmt: AttentionFormat) -> None:
        self.format = fmt

    def __call__(self, scores: Tensor, values: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Round both."""
        return self.format.quantize_scores(scores, hidden), self.format.quantize_values(values)


def find_attention(model: nn.Module) -> list[str]:
    """Names of the attention modules: those with projections to queries, keys and values of their own."""
    return [
        name for name, module in model.named_modules()
        if isinstance(getattr(module, "to_q", None), nn.Module) and hasattr(module, "processor")
    ]  # fmt: skip


def install_attention_(model: nn.Module, formats: dict[str, AttentionFormat]) -> None:
    """Round the scores and values of the modules named; `remove_attention_` undoes it.

    Raises
    ------
    InputError
        There is no module of that name.
    """
    modules = dict(model.named_modules())
    unknown = sorted(set(formats) - set(modules))
    if unknown:
        raise InputError(
            f"{type(model).__name__} has no attention module {unknown[0]!r}: another architecture"
        )
    model.__dict__[_HOOKS] = {
        name: Watcher(Rounding(fmt), name).attach(modules[name]) for name, fmt in formats.items()
    }


def attention_watchers(model: nn.Module) -> dict[str, Watcher]:
    """Watchers that `install_attention_` attached."""
    return model.__dict__.get(_HOOKS, {})


def remove_attention_(model: nn.Module) -> None:
    """Undo `install_attention_`."""
    for watcher in model.__dict__.pop(_HOOKS, {}).values():
        watcher.remove()
