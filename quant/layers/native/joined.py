"""FLUX's single blocks: what attention and MLP hand on side by side goes to one layer, without being joined.

The block joins an attention's result and the activation of an MLP into rows of both and multiplies those. The
quantizer reads the two where they lie and does the activation itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant.layers.lowbit import before as befores
from quant.layers.native.fits import PRODUCTS
from quant.layers.native.run import op_of, run_after
from quant.layers.quantized import QuantLayer

BLOCK = "FluxSingleTransformerBlock"
WORDS = "GELU and joining"
LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Joined:
    """A second tensor (..., K2) that follows the first after a GELU with tanh; see `producers.Producer`."""

    second: Tensor
    kind: str = "join_gelu"

    def plain(self, x: Tensor) -> Tensor:
        """Do it in torch."""
        return torch.cat([x, nn.functional.gelu(self.second, approximate="tanh")], -1)

    def before(self, x: Tensor) -> befores.Before:
        """Describe it to the quantizer."""
        return befores.Before(self.kind, second=self.second.reshape(-1, self.second.shape[-1]))


def obstacle(block: Any, most: int) -> str:
    """Why a block's output layer does not read both where they lie; empty if it does."""
    layer = block.proj_out
    if not isinstance(layer, QuantLayer) or layer.backend != "kernels" or op_of(layer) not in PRODUCTS:
        return "a layer that takes its result does not quantize it natively"
    if layer.weight_shape[1] > most:
        return f"of {layer.weight_shape[1]} columns it would be done twice; up to {most} it pays"
    if getattr(block.act_mlp, "approximate", "") != "tanh":
        return "no kernel for its activation behind another tensor"
    if any(hooked(m) for m in (block.act_mlp, layer, block)):
        return "hooks look at it"
    return ""


def hooked(module: nn.Module) -> bool:
    """Whether somebody sees what a module takes or gives, or has put another forward in its place."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def forward(
    block: Any,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    temb: Tensor,
    image_rotary_emb: Any = None,
    joint_attention_kwargs: dict[str, Any] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the block as its own forward does, but for the joining."""
    text = encoder_hidden_states.shape[1]
    every = torch.cat([encoder_hidden_states, hidden_states], 1)
    normed, gate = block.norm(every, emb=temb)
    late = block.proj_mlp(normed)
    early = block.attn(
        hidden_states=normed, image_rotary_emb=image_rotary_emb, **(joint_attention_kwargs or {})
    )
    out = every + gate.unsqueeze(1) * multiply(block.proj_out, early, late)
    if out.dtype == torch.float16:
        out = out.clip(-LARGEST_HALF, LARGEST_HALF)
    return out[:, :text], out[:, text:]


def multiply(layer: Any, early: Tensor, late: Tensor) -> Tensor:
    """Apply a layer to two tensors side by side, the second after its activation."""
    joined = Joined(late)
    found = None
    if layer.backend == "kernels" and layer.active and early.numel() and not hooked(layer):
        found = run_after(layer, early, joined)
    if found is None:
        return layer(joined.plain(early))
    out, path = found
    if not torch.compiler.is_compiling():
        layer.last_path = path
    return out
