"""Layers of whole models that share an input as one product, in every engine: one quantization, one launch.

Queries, keys and values of an attention; and in FLUX's single blocks those and the first layer of the MLP, as
FLUX's own checkpoints hold them (``linear1``). Transformers of U-Nets leave images with channels last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def fused(model: Any) -> nn.Module:
    """Give layers that share an input one product, in place."""
    model.fuse_qkv_projections()
    for module in model.modules():
        if not getattr(module, "fused_projections", False):
            continue
        gone = ("to_k", "to_v") if hasattr(module, "to_kv") else ("to_q", "to_k", "to_v")
        for name in (*gone, "add_q_proj", "add_k_proj", "add_v_proj"):
            if getattr(module, name, None) is not None:
                delattr(module, name)
    for block in getattr(model, "single_transformer_blocks", ()):
        _join(block)
    for module in model.modules():
        if type(module).__name__ == "Transformer2DModel" and module.use_linear_projection:
            module._get_output_for_continuous_inputs = partial(_added, module)
    return model


def _added(
    module: Any, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int,
    inner_dim: int,
) -> Tensor:  # fmt: skip
    """Hand rows back as an image without a copy in another order of axes."""
    rows = module.proj_out(hidden_states)
    return rows.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2) + residual


def group_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    """Write a module's forward as a function, since torch leaves its own modules alone; channels last."""

    def forward(x: Tensor) -> Tensor:
        out = nn.functional.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return out.contiguous(memory_format=torch.channels_last)

    return forward


@cache
def _joined() -> type:
    """Make the class, once: compiled blocks of one class share their graph."""
    from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

    class JoinedBlock(FluxSingleTransformerBlock):
        """The block with `both` in place of the attention's first layer and the MLP's."""

        def forward(
            self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor,
            image_rotary_emb: Any = None, joint_attention_kwargs: Any = None,
        ) -> tuple[Tensor, Tensor]:  # fmt: skip
            """Run it as its own forward does."""
            text = encoder_hidden_states.shape[1]
            every = torch.cat([encoder_hidden_states, hidden_states], 1)
            normed, gate = self.norm(every, emb=temb)
            both = self.both(normed)  # type: ignore[operator]
            wide = self.mlp_hidden_dim
            early = self.attn(
                hidden_states=both[..., :-wide], image_rotary_emb=image_rotary_emb,
                **(joint_attention_kwargs or {}),
            )  # fmt: skip
            late = self.act_mlp(both[..., -wide:])
            out = every + gate.unsqueeze(1) * self.proj_out(torch.cat([early, late], 2))
            return out[:, :text], out[:, text:]

    return JoinedBlock


def _join(block: Any) -> None:
    first, second = block.attn.to_qkv, block.proj_mlp
    both = nn.Linear(
        first.in_features, first.out_features + second.out_features,
        device=first.weight.device, dtype=first.weight.dtype,
    )  # fmt: skip
    both.weight.copy_(torch.cat([first.weight, second.weight]))
    both.bias.copy_(torch.cat([first.bias, second.bias]))
    block.both, block.attn.to_qkv = both, nn.Identity()
    del block.proj_mlp
    block.__class__ = _joined()
