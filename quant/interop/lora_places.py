"""Where in a model a LoRA belongs: layers by other people's names, and layers that are bypassed.

SDXL's LoRAs of kohya's trainer name layers as in the original U-Net (``input_blocks_4_1_...``). diffusers has
a map (private, and it drops names without a word where a file mixes both kinds); this one is tested against
it on every layer of a U-Net.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from quant.errors import InputError

FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}  # fmt: skip
"""Projection of several outputs that diffusers' ``fuse_qkv_projections`` makes, and those it stands for."""

ORIGINAL = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)_\d")
_SINGLE = {
    "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2", "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}  # fmt: skip
_RESNET = {
    "in_layers_2": "conv1", "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}  # fmt: skip
_MIDDLE = {"0": "resnets_0", "1": "attentions_0", "2": "resnets_1"}
_FLUX = re.compile(r"(^|[._])(double_blocks|single_blocks)[._]")


def diffusers_name(flat: str, layers_per_block: int) -> str:
    """Name of a layer of the original U-Net in diffusers' words, both with underscores.

    Parameters
    ----------
    flat : str
        As ``input_blocks_4_1_transformer_blocks_0_attn1_to_q``; another one comes back as it is.
    layers_per_block : int
        Of the U-Net's config.
    """
    if flat in _SINGLE:
        return _SINGLE[flat]
    middle = re.fullmatch(r"middle_block_([012])_(.+)", flat)
    if middle:
        return f"mid_block_{_MIDDLE[middle[1]]}_{_RESNET.get(middle[2], middle[2])}"
    found = re.fullmatch(r"(input|output)_blocks_(\d+)_(\d)_(.+)", flat)
    if not found:
        return flat
    index, place, rest = int(found[2]), int(found[3]), found[4]
    side = "down" if found[1] == "input" else "up"
    block, layer = divmod(index - (side == "down"), layers_per_block + 1)
    if rest in ("op", "conv"):  # a down- or an upsampler is the last thing in its block
        return f"{side}_blocks_{block}_{side}samplers_0_conv"
    kind = "attentions" if place else "resnets"
    return f"{side}_blocks_{block}_{kind}_{layer}_{_RESNET.get(rest, rest)}"


def layer_name(given: str, model: nn.Module, layers: dict[str, Any]) -> str:
    """Find the layer that a LoRA's entry means; `given` itself where there is none."""
    if given in layers:
        return given
    flat = {name.replace(".", "_"): name for name in layers}
    short = given.removeprefix("lora_unet_").replace(".", "_")
    if short in flat:
        return flat[short]
    depth = getattr(getattr(model, "config", None), "layers_per_block", None)
    return flat.get(diffusers_name(short, depth), given) if isinstance(depth, int) else given


def hint(given: str, close: list[str]) -> str:
    """Say what to do about a name that no layer has."""
    if _FLUX.search(given):
        return (
            "; its names are those of Flux's original model, with projections in one: convert it with "
            "quant.attach_lora(model, diffusers.FluxPipeline.lora_state_dict(FILE))"
        )
    if ORIGINAL.search(given):
        return "; its names are those of Stable Diffusion's original U-Net: is this LoRA for another model?"
    return f"; closest: {close[0]!r}" if close else ""


def bypassed(model: nn.Module, layer: str) -> str | None:
    """Name of the fused projection that computes in a layer's place; None if the layer itself does."""
    name, _, leaf = layer.rpartition(".")
    attention: Any = model.get_submodule(name)
    processor = type(getattr(attention, "processor", None)).__name__
    # newer modules take fused layers out again, older ones leave them and change the processor
    on = "Fused" in processor or (hasattr(attention, "unfuse_projections") and attention.fused_projections)
    if not on:
        return None
    return next((key for key, stood in FUSED.items() if leaf in stood and hasattr(attention, key)), None)


def refuse_bypassed(model: nn.Module, layer: str, label: str) -> None:
    """Raise if a LoRA on `layer` would do nothing.

    Raises
    ------
    InputError
        A fused projection computes in its place, or its parent multiplies by its weight itself.
    """
    if isinstance(model.get_submodule(layer.rpartition(".")[0]), nn.MultiheadAttention):
        raise InputError(
            f"{label}: PyTorch's MultiheadAttention takes the weight of {layer!r} past the layer, so a LoRA "
            "on it would do nothing: merge the LoRA into the weight before you quantize"
        )
    fused = bypassed(model, layer)
    if fused:
        raise InputError(
            f"{label}: {layer!r} is bypassed by the fused projection {fused!r}, so a LoRA on it would do "
            "nothing: call model.unfuse_qkv_projections() first, or merge the LoRA before you fuse"
        )
