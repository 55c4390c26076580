"""Where LoRAs belong: names of the original U-Net, fused projections, adapters that are there already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from diffusers.loaders import lora_conversion_utils as theirs
from torch import nn

import quant
from quant.interop.lora_places import diffusers_name

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def sdxl() -> nn.Module:
    """SDXL's blocks in little: three levels, the first without attention, and added conditions."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(16, 32, 32), layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=8,
        cross_attention_dim=16, attention_head_dim=8, transformer_layers_per_block=(1, 1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    ).eval().requires_grad_(False)  # fmt: skip


#: Layers of the original U-Net that belong to the one above: 9 input blocks, 9 output blocks.
RESNET = ("in_layers_2", "out_layers_3", "emb_layers_1")
BLOCK = "transformer_blocks_0_"
INNER = ("attn1_to_q", "attn1_to_out_0", "attn2_to_k", "ff_net_0_proj", "ff_net_2")
SGM = [
    *(f"input_blocks_{i}_0_{leaf}" for i in (1, 2, 4, 5, 7, 8) for leaf in RESNET),
    *(f"input_blocks_{i}_1_{leaf}" for i in (4, 5, 7, 8) for leaf in ("proj_in", BLOCK + INNER[0])),
    *(f"input_blocks_7_1_{BLOCK}{leaf}" for leaf in INNER[1:]),
    "input_blocks_3_0_op", "input_blocks_6_0_op", "input_blocks_4_0_skip_connection",
    *(f"middle_block_{i}_{leaf}" for i in (0, 2) for leaf in RESNET),
    *(f"middle_block_1_{leaf}" for leaf in ("proj_out", *(BLOCK + n for n in INNER))),
    "middle_block_1_transformer_blocks_1_attn2_to_v",
    *(f"output_blocks_{i}_0_{leaf}" for i in range(9) for leaf in (*RESNET, "skip_connection")),
    *(f"output_blocks_{i}_1_{BLOCK}{leaf}" for i in range(6) for leaf in INNER),
    "output_blocks_2_2_conv", "output_blocks_5_2_conv",
]  # fmt: skip
ENDS = ["input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2"]


def by_diffusers(names: list[str], model: nn.Module) -> dict[str, str]:
    """Where diffusers puts each name, flat; its own two functions one after the other."""
    state: dict[str, Any] = {f"lora_unet_{name}.lora_down.weight": name for name in names}
    mapped = theirs._maybe_map_sgm_blocks_to_diffusers(state, model.config)
    flat = {}
    for key, name in mapped.items():
        layer = theirs._convert_unet_lora_key(key)
        for part in (".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight"):
            layer = layer.removesuffix(part)
        layer = layer.replace(".processor", "").replace("to_out", "to_out.0")
        flat[name] = layer.replace(".", "_").removesuffix("_lora_down_weight")
    return flat


def test_the_map_is_diffusers_and_hits_a_layer_every_time(sdxl) -> None:
    layers = {n.replace(".", "_") for n, m in sdxl.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    ours = {name: diffusers_name(name, 2) for name in [*SGM, *ENDS]}
    assert set(ours.values()) <= layers and len(set(ours.values())) == len(ours)
    for name, there in by_diffusers(SGM, sdxl).items():
        assert ours[name] == there, name


@pytest.mark.parametrize("name", ["conv_in", "down_blocks_1_attentions_0_proj_in", "input_blocks_x", "out_3"])
def test_other_names_stay(name: str) -> None:
    assert diffusers_name(name, 2) == name


def pair(layer: nn.Module, name: str, rank: int = 2) -> dict[str, torch.Tensor]:
    out, width, *kernel = layer.weight.shape
    generator = torch.Generator().manual_seed(0)
    return {
        f"{name}.lora_down.weight": torch.randn(rank, width, *kernel, generator=generator),
        f"{name}.lora_up.weight": torch.randn(out, rank, *(1 for _ in kernel), generator=generator),
        f"{name}.alpha": torch.tensor(1.0),
    }


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_a_lora_of_kohyas_trainer_lands_where_it_belongs(prefix: str, sdxl) -> None:
    wanted = {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q":
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "middle_block_1_transformer_blocks_1_attn2_to_v":
            "mid_block.attentions.0.transformer_blocks.1.attn2.to_v",
        "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "input_blocks_0_0": "conv_in",
    }  # fmt: skip
    state: dict[str, torch.Tensor] = {"lora_te1_text_model_x.alpha": torch.tensor(1.0)}
    for given, name in wanted.items():
        state |= pair(sdxl.get_submodule(name), f"{prefix}{given}")
    lora = quant.attach_lora(sdxl, state, name="style")
    try:
        assert lora.layers == tuple(wanted.values())
        layer = sdxl.get_submodule("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q")
        x = torch.randn(3, 32)
        up, down = (state[f"{prefix}{next(iter(wanted))}.lora_{side}.weight"] for side in ("up", "down"))
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight + 0.5 * up @ down))
    finally:
        quant.detach_lora(sdxl)


def refused(model: nn.Module, state: dict[str, torch.Tensor], says: str) -> None:
    with pytest.raises(quant.InputError, match=says) as caught:
        quant.attach_lora(model, state)
    assert "\n" not in str(caught.value) and not quant.attached_loras(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_names_that_mean_nothing_here_say_what_to_do(sdxl) -> None:
    layer = sdxl.conv_in
    for name, says in (
        ("lora_unet_input_blocks_11_1_proj_in", "original U-Net: is this LoRA for another model"),
        ("lora_unet_double_blocks_0_img_attn_qkv", r"convert it with .*FluxPipeline\.lora_state_dict"),
        ("diffusion_model.single_blocks.3.linear1", r"convert it with .*FluxPipeline\.lora_state_dict"),
        ("conv_inn", "closest: 'conv_in'"),
    ):
        refused(sdxl, pair(layer, name), says)
    twice = {**pair(layer, "lora_unet_input_blocks_0_0"), **pair(layer, "conv_in")}
    refused(sdxl, twice, "two entries are for 'conv_in'")


def fused(kind: str) -> tuple[nn.Module, str]:
    """A model whose diffusers class is old (it keeps fused layers) or new (it takes them out again)."""
    torch.manual_seed(0)
    if kind == "unet":
        model = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16,), layers_per_block=1,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=8,
            cross_attention_dim=16, attention_head_dim=8,
        )  # fmt: skip
        return model.eval(), ATTENTION
    model = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, num_attention_heads=2, attention_head_dim=16,
        joint_attention_dim=24, pooled_projection_dim=20, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return model.eval(), "transformer_blocks.0.attn"


@pytest.mark.parametrize("kind", ["unet", "flux"])
def test_a_lora_on_a_fused_projection_is_refused_and_works_after_unfusing(kind: str) -> None:
    model, attention = fused(kind)
    leaves = ["to_q", "to_k", "to_v"] + (["add_k_proj"] if kind == "flux" else [])
    states = {
        leaf: pair(model.get_submodule(f"{attention}.{leaf}"), f"{attention}.{leaf}") for leaf in leaves
    }
    model.fuse_qkv_projections()
    for leaf, state in states.items():
        refused(
            model, state, rf"attn.*\.{leaf}' is bypassed by the fused projection .*unfuse_qkv_projections"
        )
    other = pair(model.get_submodule(f"{attention}.to_out.0"), f"{attention}.to_out.0")
    quant.attach_lora(model, other)
    quant.detach_lora(model)
    if kind == "unet":  # cross-attention: queries are not fused
        cross = ATTENTION.replace("attn1", "attn2")
        quant.attach_lora(model, pair(model.get_submodule(f"{cross}.to_q"), f"{cross}.to_q"))
        quant.detach_lora(model)
        refused(
            model, pair(model.get_submodule(f"{cross}.to_k"), f"{cross}.to_k"), "fused projection 'to_kv'"
        )
    model.unfuse_qkv_projections()
    for state in states.values():
        quant.attach_lora(model, state)
    assert len(quant.attached_loras(model)) == len(states)


@torch.no_grad()
def test_fusing_afterwards_is_refused_where_it_would_lose_the_lora() -> None:
    model, _ = fused("unet")
    x = (torch.randn(2, 4, 8, 8), torch.tensor(500.0), torch.randn(2, 7, 16))
    layer = model.get_submodule(f"{ATTENTION}.to_q")
    plain = model(*x)[0]
    quant.attach_lora(model, pair(layer, f"{ATTENTION}.to_q"))
    expected = model(*x)[0]
    assert not torch.equal(expected, plain)
    model.fuse_qkv_projections()
    with pytest.raises(quant.InputError, match="LoRA 'lora-1': 'to_q' is bypassed by the fused projection"):
        model(*x)
    model.unfuse_qkv_projections()
    assert torch.equal(model(*x)[0], expected)
    model.fuse_qkv_projections()
    quant.detach_lora(model)
    torch.testing.assert_close(model(*x)[0], plain, rtol=1e-4, atol=1e-4)


def peft_model() -> nn.Module:
    from peft import LoraConfig

    model, _ = fused("unet")
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    return model


def test_an_adapter_in_the_model_is_said_everywhere(tmp_path) -> None:
    model, bare = peft_model(), fused("unet")[0]
    quant.quantize_(bare, "rtn-w8a8")
    file = quant.export(bare, tmp_path / "m.safetensors")
    layer = model.conv_in
    for act in (
        lambda: quant.quantize_(model, "rtn-w4a4"), lambda: quant.plan(model, "rtn-w4a4"),
        lambda: quant.load(file, model), lambda: quant.attach_lora(model, pair(layer, "conv_in")),
    ):  # fmt: skip
        with pytest.raises(quant.InputError, match=r"peft adapter \(2 layers, the first is .*fuse_lora"):
            act()
    model.fuse_lora()
    model.unload_lora()
    ledger = quant.quantize_(model, "rtn-w4a4")
    assert not [line.name for line in ledger.layers if "lora" in line.name]


def test_other_tools_on_a_quantized_model(tmp_path) -> None:
    """peft beside the codes works and cannot be merged; fused projections get the effective weight."""
    from peft import LoraConfig

    model, _ = fused("unet")
    quant.quantize_(model, "rtn-w8a8")
    attention, rows = model.get_submodule(ATTENTION), torch.randn(5, 16)
    before = attention.to_q(rows)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    beside = attention.to_q(rows)
    with pytest.raises(quant.InputError, match=r"cannot be written.*quant\.attach_lora"):
        model.fuse_lora()
    assert torch.equal(attention.to_q(rows), beside) and not torch.equal(beside, before)
    with pytest.raises(quant.InputError, match="peft adapter"):
        quant.export(model, tmp_path / "m.safetensors")
    model.unload_lora()
    assert torch.equal(attention.to_q(rows), before)
    quant.export(model, tmp_path / "m.safetensors")
    model.fuse_qkv_projections()
    torch.testing.assert_close(attention.to_qkv(rows)[:, :16], before, rtol=0.05, atol=0.05)
    with pytest.raises(quant.InputError, match=r"to_qkv' was put into the model after it was"):
        quant.export(model, tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()


def test_factors_cast_in_inference_mode_serve_a_backward() -> None:
    layer = SimpleNamespace(model=nn.Sequential(nn.Linear(16, 16)).half())
    quant.attach_lora(layer.model, pair(layer.model[0], "0"))
    x = torch.randn(3, 16).half()
    with torch.inference_mode():
        layer.model(x)
    layer.model(x.requires_grad_(True)).sum().backward()
    assert bool(x.grad.any())


def test_a_layer_whose_parent_takes_its_weight_is_refused() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    refused(model, pair(model.self_attn.out_proj, "self_attn.out_proj"), "takes the weight .* past the layer")
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        plain = model(x)
        quant.attach_lora(model, pair(model.linear1, "linear1"))
        assert not torch.allclose(model(x), plain)
