"""A tiny random denoiser of every family, and a recording of each."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.denoisers import families

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("UNet2DConditionModel", {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32),
        "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 24, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }),
    "unconditional": ("UNet2DModel", {
        "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (16, 32),
        "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }),
    "dit": ("DiTTransformer2DModel", {
        "sample_size": 8, "in_channels": 4, "out_channels": 8, "patch_size": 2, "num_layers": 2,
        "num_attention_heads": 2, "attention_head_dim": 16, "num_embeds_ada_norm": 10,
    }),
    "pixart": ("PixArtTransformer2DModel", {
        "sample_size": 8, "in_channels": 4, "out_channels": 8, "patch_size": 2, "num_layers": 2,
        "num_attention_heads": 2, "attention_head_dim": 18, "cross_attention_dim": 36,
        "caption_channels": 24, "norm_num_groups": 4, "use_additional_conditions": False,
    }),
    "sd3": ("SD3Transformer2DModel", {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "patch_size": 2, "num_layers": 2,
        "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 24,
        "caption_projection_dim": 32, "pooled_projection_dim": 20, "pos_embed_max_size": 8,
        "qk_norm": "rms_norm", "dual_attention_layers": (0,),
    }),
    "flux": ("FluxTransformer2DModel", {
        "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2,
        "attention_head_dim": 16, "joint_attention_dim": 24, "pooled_projection_dim": 20,
        "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
    }),
    "wan": ("WanTransformer3DModel", {
        "in_channels": 4, "out_channels": 4, "patch_size": (1, 2, 2), "num_layers": 2, "text_dim": 24,
        "num_attention_heads": 2, "attention_head_dim": 16, "freq_dim": 16, "ffn_dim": 48,
        "rope_max_seq_len": 64,
    }),
    "cogvideox": ("CogVideoXTransformer3DModel", {
        "in_channels": 4, "out_channels": 4, "patch_size": 2, "num_layers": 2, "text_embed_dim": 24,
        "num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 16, "sample_height": 8,
        "sample_width": 8, "sample_frames": 9, "max_text_seq_length": 7,
        "use_rotary_positional_embeddings": True,
    }),
}  # fmt: skip
SHAPES = {"unconditional": (3, 8, 8), "wan": (4, 3, 8, 8), "cogvideox": (4, 3, 8, 8)}


def build(name: str, seed: int = 0, **changes: Any) -> torch.nn.Module:
    """Random weights that differ from each other and from nothing: adaLN-zero starts as the identity."""
    kind, config = CONFIGS[name]
    torch.manual_seed(seed)
    model = getattr(diffusers, kind)(**{**config, **changes}).eval()
    for parameter in model.parameters():
        if not parameter.is_meta and parameter.ndim > 1 and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def conditions(name: str, model: torch.nn.Module, count: int = 6) -> torch.Tensor | None:
    generator = torch.Generator().manual_seed(7)
    if name == "unconditional":
        return None
    if name == "dit":
        return torch.arange(count) % 10
    tokens = torch.randn(count, 7, 24, generator=generator)
    extras: dict[str, Any] = {}
    if name in ("sd3", "flux"):
        extras["pooled_projections"] = torch.randn(count, 20, generator=generator)
    if name == "flux":
        extras["guidance"] = 3.5
    return families.pack(model, tokens, **extras)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], quant.Trajectories]:
    """`store(family)`: six samples of two steps, recorded once a session."""
    made: dict[str, quant.Trajectories] = {}

    def get(name: str) -> quant.Trajectories:
        if name not in made:
            model = build(name)
            made[name] = quant.record(
                model, FlowMatchEulerDiscreteScheduler(), conditions(name, model),
                tmp_path_factory.mktemp(name), n_steps=2, n_samples=6, shape=SHAPES.get(name, (4, 8, 8)),
            )  # fmt: skip
        return made[name]

    return get


@pytest.fixture(scope="session")
def family() -> SimpleNamespace:
    """`build(name, seed, **changes)`, `conditions(name, model)`, `names`."""
    return SimpleNamespace(build=build, conditions=conditions, names=tuple(CONFIGS), shapes=SHAPES)
