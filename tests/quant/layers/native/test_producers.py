"""Norms and activations inside the quantizer: equal to the simulated block, put back, copied, and refused."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

import quant
from quant.errors import HardwareError
from quant.formats.quantizer import int_quantizer
from quant.formats.schedule import Clock, Schedule
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import quant_layers, state_of
from quant.layers.native import producers
from quant.layers.native.producers import unwire_, wire_
from quant.layers.native.ways import native_, natively, summary
from quant.layers.quantized import make

ACTIVATIONS = {"geglu": "GEGLU", "gelu-approximate": "GELU", "gelu": "GELU"}


def block(activation: str, device: str = "cpu", **more: object) -> nn.Module:
    torch.manual_seed(0)
    options = {"cross_attention_dim": 32, "activation_fn": activation, **more}
    model = nn.ModuleDict({"block": BasicTransformerBlock(64, 2, 32, **options)}).eval().requires_grad_(False)
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm) and norm.weight is not None:
            norm.weight.copy_(torch.rand(64) + 0.5)
            norm.bias.copy_(torch.randn(64) * 0.1)
    quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    return model.to(device)


def inputs(device: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden, context = torch.randn(2, 9, 64, generator=generator), torch.randn(2, 5, 32, generator=generator)
    return {"hidden_states": hidden.to(device), "encoder_hidden_states": context.to(device)}


@torch.no_grad()
def check(device: str) -> None:
    """As simulated, before and after; the ledger says what was moved."""
    for activation, word in ACTIVATIONS.items():
        model, given = block(activation, device), inputs(device)
        simulated = model["block"](**given)
        with natively(model) as ways:
            out = model["block"](**given)
            assert ((out - simulated).norm() / simulated.norm()).item() < 2e-3, activation
            first = {name.removeprefix("block."): one.first for name, one in ways.items() if one.first}
            assert first == {
                "attn1.to_q": "layer norm", "attn1.to_k": "layer norm", "attn1.to_v": "layer norm",
                "attn2.to_q": "layer norm", "ff.net.0.proj": "layer norm", "ff.net.2": word,
            }, first  # fmt: skip
            assert f"5 with layer norm first, 1 with {word} first" in summary(ways)
            lines = {line.name: line.path for line in state_of(model).ledger.layers}
            assert lines["block.ff.net.2"] == f"native: int8, {word} first"
            for layer in quant_layers(model).values():  # one layer back to simulated, the rest as it is
                layer.backend = "simulated"
            assert torch.equal(model["block"](**given), simulated)
        assert torch.equal(model["block"](**given), simulated)
    model = block("geglu", device)
    native_(model)
    out = model["block"](**inputs(device))
    again = copy.deepcopy(model)
    model["block"].norm1.weight.zero_()
    assert torch.equal(again["block"](**inputs(device)), out)
    assert not torch.equal(model["block"](**inputs(device)), out)

    odd(device)
    images(device)


def odd(device: str) -> None:
    """What another reader needs, patched modules and later hooks: as simulated."""
    context = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(2)).to(device)
    cases = [
        ({"cross_attention_dim": 64}, {}),  # keys and values of the input itself
        ({"cross_attention_dim": None, "double_self_attention": True}, {"encoder_hidden_states": context}),
    ]
    for options, more in cases:
        model = block("geglu", device, **options)
        given = {"hidden_states": inputs(device)["hidden_states"], **more}
        simulated = model["block"](**given)
        with natively(model):
            assert ((model["block"](**given) - simulated).norm() / simulated.norm()).item() < 2e-3, options

    model, given = block("geglu", device), inputs(device)
    plain = model["block"].norm1.forward
    model["block"].norm1.forward = lambda x: 2 * plain(x)
    simulated = model["block"](**given)
    with natively(model) as ways:
        assert ((model["block"](**given) - simulated).norm() / simulated.norm()).item() < 2e-3
        assert not ways["block.attn1.to_q"].first
    assert torch.equal(model["block"](**given), simulated)

    model, seen = block("geglu", device), []
    for name in ("attn1.to_q", "ff.net.2"):
        layer = model["block"].get_submodule(name)
        handle = layer.register_forward_hook(lambda _, args, __: seen.append(args[0]))
        model["block"](**given)
        handle.remove()
        with natively(model):
            handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            model["block"](**given)
            handle.remove()
        before, after = seen[-2:]
        assert ((after - before).norm() / before.norm()).item() < 2e-3, name
    for name, reader in (("attn1", "attn1.to_q"), ("ff", "ff.net.0.proj"), ("ff.net.1", "ff.net.2")):
        module = model["block"].get_submodule(name)  # between the two: what it is given is whole again
        handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model["block"](**given)
        handle.remove()
        with natively(model) as ways:
            assert ways[f"block.{reader}"].first
            handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            model["block"](**given)
            handle.remove()
        before, after = seen[-2:]
        assert before.shape == after.shape and ((after - before).norm() / before.norm()).item() < 2e-3, name
    for name in ("norm1", "ff.net.0"):  # modules that handed their input on: what they give is theirs again
        module = model["block"].get_submodule(name)
        handle = module.register_forward_hook(lambda *given: seen.append(given[-1]))
        model["block"](**given)
        handle.remove()
        with natively(model):
            handle = module.register_forward_hook(lambda *given: seen.append(given[-1]))
            out = model["block"](**given)
            handle.remove()
            assert torch.equal(model["block"](**given), out), name
        before, after = seen[-2:]
        assert before.shape == after.shape and ((after - before).norm() / before.norm()).item() < 2e-3, name


def images(device: str) -> None:
    """A residual block: group norm and SiLU in front of both convolutions, the time embedding's SiLU kept."""
    torch.manual_seed(0)
    resnet = ResnetBlock2D(in_channels=32, out_channels=48, temb_channels=16, groups=8).eval()
    for norm in (resnet.norm1, resnet.norm2):
        norm.weight.copy_(torch.rand_like(norm.weight) + 0.5)
        norm.bias.copy_(torch.randn_like(norm.bias) * 0.1)
    model = nn.ModuleDict({"resnet": resnet}).to(device)
    weight, given = int_quantizer(8, "channel", schedule=Schedule(kind="static")), int_quantizer(8, "sample")
    for name in ("conv1", "conv2"):
        conv = getattr(resnet, name)
        encoded = EncodedWeight.from_weight(conv.weight.data, weight, "conv_weight")
        setattr(resnet, name, make(conv, LayerResult(encoded, given), Clock(), keep_original=False))
    x, time = torch.randn(2, 32, 6, 5).to(device), torch.randn(2, 16).to(device)
    simulated = resnet(x, time)
    words, kept = wired(model)
    assert words == {f"resnet.conv{n}": "group norm and SiLU" for n in (1, 2)} and not kept
    out = resnet(x, time)
    assert ((out - simulated).norm() / simulated.norm()).item() < 2e-3
    assert resnet.conv1.last_path == "conv int8: triton"
    seen: list[torch.Tensor] = []
    handle = resnet.norm2.register_forward_hook(lambda *given: seen.append(given[-1]))
    assert ((resnet(x, time) - simulated).norm() / simulated.norm()).item() < 2e-3
    handle.remove()
    assert seen[0].mean().abs() < 1 and resnet.conv1.producer is resnet.conv2.producer is None
    for layer in (resnet.conv1, resnet.conv2):
        layer.backend = "simulated"
    assert torch.equal(resnet(x, time), simulated)


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    check("cuda")


def wired(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    for layer in quant_layers(model).values():
        layer.backend = "kernels"
    found = wire_(model)
    return found.words, found.kept


@torch.no_grad()
def test_what_comes_before_is_what_the_module_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found = producers.group_norm.group_norm
    monkeypatch.setattr(
        producers.group_norm, "group_norm", lambda *given, path: found(*given, path="reference")
    )
    norm, groups = nn.LayerNorm(64, eps=0.3), nn.GroupNorm(8, 64, eps=0.2)
    for module in (norm, groups):
        module.weight.copy_(torch.rand(64) + 0.5)
        module.bias.copy_(torch.randn(64))
    x, image = torch.randn(2, 9, 64), torch.randn(2, 64, 3, 5)
    for kind, module in (
        ("layer_norm", norm),
        ("gelu", nn.GELU()),
        ("gelu_tanh", nn.GELU()),
        ("geglu", nn.GELU()),
    ):
        producer = producers.Producer(kind, module)
        exact = producer.plain(x).flatten(0, 1)
        torch.testing.assert_close(producer.before(x).reference(x.flatten(0, 1)), exact)
    producer = producers.Producer("group_norm_silu", groups)
    pixels = image.flatten(2).mT.contiguous()
    before = producer.before(pixels).reference(pixels.flatten(0, 1)).reshape(2, 15, 64)
    torch.testing.assert_close(before, producer.plain(image).flatten(2).mT)


def test_what_is_read_elsewhere_or_changed_in_between_stays() -> None:
    attention = {f"block.attn1.to_{name}" for name in "qkv"}
    model = block("geglu", cross_attention_dim=64)  # keys and values of a context or of the input
    assert attention < set(wired(model)[0]) and "block.attn2.to_q" not in wired(model)[0]
    model = block("geglu")
    model["block"].attn1.residual_connection = True
    assert not attention & set(wired(model)[0])
    model = block("geglu", positional_embeddings="sinusoidal", num_positional_embeddings=9)
    assert set(wired(model)[0]) == {"block.ff.net.2"}


@pytest.mark.parametrize(
    "options", [{"up": True}, {"down": True}, {"dropout": 0.1}, {"time_embedding_norm": "scale_shift"}]
)
def test_norms_of_images_stay_where_something_comes_between(options: dict[str, object]) -> None:
    model = nn.ModuleDict({"resnet": ResnetBlock2D(in_channels=32, temb_channels=16, groups=8, **options)})
    weight, given = int_quantizer(8, "channel", schedule=Schedule(kind="static")), int_quantizer(8, "sample")
    for name in ("conv1", "conv2"):
        conv = getattr(model["resnet"], name)
        encoded = EncodedWeight.from_weight(conv.weight.detach(), weight, "conv_weight")
        setattr(model["resnet"], name, make(conv, LayerResult(encoded, given), Clock()))
    words, kept = wired(model)
    assert not words and set(kept) == {"resnet.conv1", "resnet.conv2"}
    assert all("something comes between" in why for why in kept.values())


def test_an_adaptive_norm_stays() -> None:
    words, kept = wired(block("gelu-approximate", norm_type="ada_norm_single"))
    assert words == {"block.ff.net.2": "GELU"}
    assert kept["block.attn1.to_q"] == (
        "adaptive norm before it in torch: its gain comes from outside the module"
    )
    assert "block.ff.net.2" not in kept


def test_wide_rows_stay_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "MOST", 64)
    words, kept = wired(block("geglu"))
    assert words["block.ff.net.0.proj"] == "layer norm" and "block.ff.net.2" not in words
    assert kept["block.ff.net.2"].startswith("GEGLU before it in torch: of 256 columns")


def test_what_others_look_at_stays_and_says_why() -> None:
    model = block("geglu")
    model["block"].norm2.register_forward_hook(lambda *_: None)
    quant_layers(model)
    layer = model["block"].ff.net[2]
    assert wired(model)[1] == {"block.attn2.to_q": "layer norm before it in torch: hooks look at it"}
    unwire_(model)
    layer.backend = "simulated"
    found = wire_(model)
    assert found.kept["block.ff.net.2"] == (
        "GEGLU before it in torch: a layer that takes its result does not quantize it natively"
    )
    assert "block.ff.net.2" not in found.words


def test_containers_that_others_look_at_keep_their_input() -> None:
    model = block("geglu")
    model["block"].attn1.register_forward_pre_hook(lambda *_: None)
    model["block"].ff.register_forward_pre_hook(lambda *_: None)
    words, _ = wired(model)
    assert set(words) == {"block.attn2.to_q", "block.ff.net.2"}


def test_wiring_twice_finds_the_same() -> None:
    model = block("geglu")
    first = wired(model)
    assert wired(model) == first and first[0] and not first[1]


def test_going_back_to_a_native_model_keeps_what_it_did_first() -> None:
    model = block("geglu")
    words, _ = wired(model)
    before = {name: layer.producer.kind for name, layer in quant_layers(model).items() if layer.producer}
    with pytest.raises(HardwareError), natively(model):  # no kernel runs on a CPU
        pass
    again = {name: layer.producer.kind for name, layer in quant_layers(model).items() if layer.producer}
    assert again == before and set(again) == set(words)


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)


def test_blocks_of_others_with_the_same_name_are_left_alone() -> None:
    model = nn.ModuleDict({"feed": FeedForward()})
    quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    assert wired(model) == ({}, {})
