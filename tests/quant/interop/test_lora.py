"""Foreign LoRAs on quantized models: exactness, names, several at once, what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import quant
from quant.formats.quantizer import int_quantizer
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, quant_layers

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"


def pair(out: int, width: int, rank: int = 4, seed: int = 0, kernel: tuple = ()) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, width, *kernel, generator=generator)
    up = torch.randn(out, rank, *([1] * len(kernel)), generator=generator)
    return down, up


def named(layer: str, factors: tuple, down: str = "lora_A", up: str = "lora_B", prefix: str = "") -> dict:
    return {f"{prefix}{layer}.{down}.weight": factors[0], f"{prefix}{layer}.{up}.weight": factors[1]}


@pytest.fixture
def model(tiny):
    made = tiny.build("unet")
    quant.quantize_(made, "rtn-w8a8")
    return made


def smoothed(shift: float = 0.0) -> nn.Module:
    """One linear with smoothing, a branch and 8-bit codes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 20))
    smooth = Smooth(torch.rand(48) * 4 + 0.25, shift=shift)
    branch = LowRank(torch.randn(4, 48), torch.randn(20, 4))
    residual = smooth.to_weight(model[0].weight.detach() - branch.weight())
    encoded = EncodedWeight.from_weight(residual, int_quantizer(8, "channel"), "linear_weight")
    install_(model, {"0": LayerResult(encoded, int_quantizer(8, "token"), transform=smooth, branch=branch)})
    return model


@pytest.mark.parametrize("backend", ["simulated", "kernels"])
def test_the_lora_sees_the_input_before_smoothing(backend: str) -> None:
    model, (down, up) = smoothed(), pair(20, 48)
    x = torch.randn(3, 7, 48)
    with torch.no_grad(), quant.use_backend(model, backend):
        plain = model(x)
        lora = quant.attach_lora(model, named("0", (down, up)), strength=0.7)
        torch.testing.assert_close(model(x) - plain, 0.7 * x @ down.T @ up.T, rtol=1e-4, atol=1e-4)
        lora.strength = 0
        assert torch.equal(model(x), plain)
        quant.detach_lora(model)
        assert torch.equal(model(x), plain) and not model[0]._forward_hooks


def test_strength_zero_is_bitwise_and_codes_stay(model, tiny) -> None:
    before, state = tiny.run(model, "unet"), copy.deepcopy(model.state_dict())
    lora = quant.attach_lora(
        model, {**named(TO_Q, pair(64, 64)), **named(CONV, pair(64, 64, kernel=(3, 3)))}, 0
    )
    assert torch.equal(tiny.run(model, "unet"), before)
    lora.strength = 1
    assert not torch.equal(tiny.run(model, "unet"), before)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert set(state) == set(model.state_dict())
    lora.strength = 0.0
    assert torch.equal(tiny.run(model, "unet"), before)


def test_a_lora_on_float_layers_equals_the_merged_weight(tiny) -> None:
    """Linear, 1x1, 3x3 and strided convolutions; with quantization switched off there is no other error."""
    model = tiny.build("unet")
    layers = {TO_Q: (), CONV: (3, 3), "up_blocks.0.resnets.0.conv_shortcut": (1, 1),
              "down_blocks.0.downsamplers.0.conv": (3, 3)}  # fmt: skip
    state, merged = {}, copy.deepcopy(model)
    for index, (name, kernel) in enumerate(layers.items()):
        weight = merged.get_parameter(f"{name}.weight")
        down, up = pair(weight.shape[0], weight.shape[1], seed=index, kernel=kernel)
        down, up = down * 0.05, up * 0.05
        state.update(named(name, (down, up)))
        weight.data += 0.8 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    quant.quantize_(model, "rtn-w8a8")
    quant.attach_lora(model, state, strength=0.8)
    with quant.enabled(model, False):
        torch.testing.assert_close(tiny.run(model, "unet"), tiny.run(merged, "unet"), rtol=1e-4, atol=1e-5)


def test_every_way_of_naming_is_one_lora(model, tiny, tmp_path) -> None:
    factors = pair(64, 64)
    quant.attach_lora(model, named(TO_Q, factors))
    expected = tiny.run(model, "unet")
    quant.detach_lora(model)
    old = TO_Q.replace("attn1.to_q", "attn1.processor.to_q_lora")
    flat = "lora_unet_" + TO_Q.replace(".", "_")
    alpha = {f"{flat}.alpha": torch.tensor(4.0)}
    ways = [
        named(TO_Q, factors, prefix="base_model.model."),
        named(TO_Q, factors, prefix="unet."),
        named(TO_Q, factors, "lora_A.default", "lora_B.default", "transformer."),
        named(TO_Q, factors, "lora.down", "lora.up", "unet."),
        named(TO_Q, factors, "lora_linear_layer.down", "lora_linear_layer.up", "unet."),
        {f"unet.{old}.{part}.weight": tensor for part, tensor in zip(("down", "up"), factors, strict=True)},
        {**named(flat, factors, "lora_down", "lora_up"), **alpha},
        {**named(flat, [f[..., None, None] for f in factors], "lora_down", "lora_up"), **alpha},
    ]
    for state in ways:
        quant.attach_lora(model, state)
        assert torch.equal(tiny.run(model, "unet"), expected), next(iter(state))
        quant.detach_lora(model)
    extra = {"text_encoder.layers.0.q.lora_A.weight": torch.zeros(4, 8)}
    save_file({**ways[1], **extra}, tmp_path / "style.safetensors")
    lora = quant.attach_lora(model, tmp_path / "style.safetensors")
    assert lora.name == "style" and lora.layers == (TO_Q,) and lora.ignored == tuple(extra)
    assert torch.equal(tiny.run(model, "unet"), expected)


def test_alpha_comes_from_the_file_its_config_or_the_call(tmp_path) -> None:
    (down, up), x = pair(20, 48), torch.randn(2, 48)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(named("0", (down, up), prefix="base_model.model."), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    header = {"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 8})}
    save_file(named("0", (down, up), prefix="transformer."), tmp_path / "d.safetensors", metadata=header)
    for source, options, factor in (
        (named("0", (down, up)), {}, 1.0),
        ({**named("0", (down, up)), "0.alpha": torch.tensor(2.0)}, {}, 0.5),
        (named("0", (down, up)), {"alpha": 12}, 3.0),
        (folder, {}, 2.0),
        (tmp_path / "d.safetensors", {}, 2.0),
    ):
        model = smoothed()
        with torch.no_grad():
            plain = model(x)
            quant.attach_lora(model, source, **options)
            torch.testing.assert_close(model(x) - plain, factor * x @ down.T @ up.T, rtol=1e-4, atol=2e-4)


def test_several_at_once_add_up_and_leave_in_any_order() -> None:
    model, x = smoothed(), torch.randn(5, 48)
    pairs = [pair(20, 48, rank=2 + i, seed=i) for i in range(3)]
    with torch.no_grad():
        plain = model(x)
        for index, factors in enumerate(pairs):
            quant.attach_lora(model, named("0", factors), strength=index + 1.0, name=f"l{index}")
        total = sum((i + 1) * x @ d.T @ u.T for i, (d, u) in enumerate(pairs))
        torch.testing.assert_close(model(x) - plain, total, rtol=1e-4, atol=1e-3)
        assert list(quant.attached_loras(model)) == ["l0", "l1", "l2"]
        quant.detach_lora(model, "l1")
        twin = copy.deepcopy(model)
        assert torch.equal(twin(x), model(x))
        quant.attached_loras(twin)["l0"].strength = 0
        assert not torch.equal(twin(x), model(x))  # a copy has strengths of its own
        quant.detach_lora(model, "l0")
        quant.detach_lora(model, "l2")
        assert torch.equal(model(x), plain) and not quant.attached_loras(model)


def test_the_file_is_the_model_without_its_loras(model, tmp_path) -> None:
    first = quant.export(model, tmp_path / "a.safetensors").read_bytes()
    quant.attach_lora(model, named(TO_Q, pair(64, 64)))
    assert quant.export(model, tmp_path / "b.safetensors").read_bytes() == first
    for verb in (quant.restore_, lambda m: quant.quantize_(m, "rtn-w8a8")):
        with pytest.raises(quant.InputError, match=r"LoRA 'lora-1' is attached .* quant\.detach_lora"):
            verb(model)
    quant.detach_lora(model)
    quant.restore_(model)


BAD = {
    "unknown layer": (named("mid_block.resnets.0.conv9", pair(64, 64)), "has no layer .*closest: 'mid_block"),
    "wrong width": (named(TO_Q, pair(64, 63)), r"factors \(4, 63\) and \(64, 4\) do not fit layer"),
    "wrong output": (named(TO_Q, pair(32, 64)), r"it needs \(r, 64\) and \(64, r\)"),
    "two ranks": (named(TO_Q, (torch.ones(3, 64), torch.ones(64, 4))), "do not fit layer"),
    "kernel": (named(CONV, pair(64, 64, kernel=(1, 1))), r"it needs \(r, 64, 3, 3\)"),
    "half a pair": ({f"{TO_Q}.lora_A.weight": torch.ones(4, 64)}, r"only one factor of two \(down\)"),
    "not finite": (named(TO_Q, (torch.full((4, 64), torch.nan), torch.ones(64, 4))), "NaN or infinite"),
    "alpha not finite": (
        {**named(TO_Q, pair(64, 64)), f"{TO_Q}.alpha": torch.tensor(torch.nan)},
        "alpha of .* is nan",
    ),
    "alpha of many": (
        {**named(TO_Q, pair(64, 64)), f"{TO_Q}.alpha": torch.ones(3)},
        "has 3 values; alpha is one number",
    ),
    "dora": ({f"{TO_Q}.dora_scale": torch.ones(64)}, "is no part of a plain LoRA"),
    "lokr": ({f"{TO_Q}.lokr_w1": torch.ones(4, 4)}, "is no part of a plain LoRA"),
    "bias": ({f"{TO_Q}.lora_B.bias": torch.ones(4)}, "is no part of a plain LoRA"),
    "text only": ({"text_encoder.q.lora_A.weight": torch.ones(1)}, r"no entry for a denoiser \(1 for text"),
    "empty": ({}, "no entry for a denoiser"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_loras_are_one_line_and_nothing_is_attached(case: str, model) -> None:
    state, says = BAD[case]
    good = named("mid_block.resnets.0.conv2", pair(64, 64, kernel=(3, 3)))
    with pytest.raises(quant.InputError, match=says) as caught:
        quant.attach_lora(model, {**(good if state and "text" not in case else {}), **state})
    assert "\n" not in str(caught.value)
    assert not quant.attached_loras(model)
    assert not any(layer._forward_hooks for layer in quant_layers(model).values())


def test_bad_files_and_calls(model, tmp_path) -> None:
    with pytest.raises(quant.MissingDataError, match="no LoRA at"):
        quant.attach_lora(model, tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(quant.InputError, match="truncated or not a safetensors file"):
        quant.attach_lora(model, tmp_path / "broken.safetensors")
    (tmp_path / "dora").mkdir()
    save_file({"x.lora_A.weight": torch.ones(1)}, tmp_path / "dora" / "adapter_model.safetensors")
    for settings, says in (({"use_dora": True}, "is a DoRA"), ({"use_rslora": True}, "by a rule")):
        (tmp_path / "dora" / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(quant.InputError, match=says):
            quant.attach_lora(model, tmp_path / "dora")
    lora = quant.attach_lora(model, named(TO_Q, pair(64, 64)), name="a")
    with pytest.raises(quant.InputError, match="'a' is attached already"):
        quant.attach_lora(model, named(TO_Q, pair(64, 64)), name="a")
    with pytest.raises(quant.InputError, match="strength = nan must be a finite number"):
        lora.strength = float("nan")
    with pytest.raises(quant.InputError, match="no LoRA 'b' is attached; attached: a"):
        quant.detach_lora(model, "b")


def test_equals_peft(tiny) -> None:
    peft = pytest.importorskip("peft")
    model = tiny.build("unet")
    quantized = copy.deepcopy(model)
    quant.quantize_(quantized, "rtn-w8a8")
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["to_q", "to_out.0", "conv1"], init_lora_weights=False
    )
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, config)
    expected = tiny.run(wrapped.base_model.model, "unet")
    quant.attach_lora(quantized, peft.get_peft_model_state_dict(wrapped), alpha=6)
    with quant.enabled(quantized, False):
        torch.testing.assert_close(tiny.run(quantized, "unet"), expected, rtol=1e-4, atol=1e-5)


def test_peft_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['peft'] = None; import torch, quant;"
        "m = torch.nn.Sequential(torch.nn.Linear(8, 8));"
        "quant.attach_lora(m, {'0.lora_A.weight': torch.ones(2, 8), '0.lora_B.weight': torch.ones(8, 2)})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
