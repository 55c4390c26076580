"""State dictionaries: what fits is loaded whole, what does not is refused before the first tensor moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

import quant
from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.layers.attachments import LowRank, Smooth
from quant.layers.attention import AttentionFormat, install_attention_
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.install import install_, restore_
from quant.layers.rotations import Rotate

X = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
GROUP = Granularity(kind="group", group_size=64)
INT4 = int_quantizer(4, "group", 64)
State = dict[str, Any]


def layers(seed: int = 0, weight: Quantizer = INT4, **sides: Any) -> nn.Module:
    """Two quantized linears between plain layers."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    model = model.requires_grad_(False)
    results = {}
    for name in ("1", "3"):
        there = {"transform": Smooth(torch.rand(64) + 0.5), "activation": int_quantizer(8, "token"), **sides}
        if there.get("branch"):
            there["branch"] = LowRank(torch.randn(4, 64), torch.randn(64, 4))
        value = model.get_parameter(f"{name}.weight")
        results[name] = LayerResult(EncodedWeight.from_weight(value, weight, "linear_weight"), **there)
    install_(model, results)
    return model


def unchanged_and_refused(model: nn.Module, act: Callable[[], object], says: str) -> None:
    before, values = model(X), copy.deepcopy(model.state_dict())
    with pytest.raises(quant.InputError, match=says) as caught:
        act()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert all(torch.equal(values[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(model(X), before)


E2M1 = Quantizer(grid=FloatGrid(exponent=2, mantissa=1), granularity=GROUP, scale_dtype="bfloat16")
UNSIGNED = Quantizer(grid=IntGrid(bits=4, mode="unsigned"), granularity=GROUP, scale_dtype="bfloat16")

OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # the same names, shapes and types, and another meaning
    "float codes": ({}, {"weight": E2M1}, "weight is fp4.*here it is int4"),
    "unsigned codes": ({}, {"weight": UNSIGNED}, "weight is int4 unsigned"),
    "inputs of 4 bits": ({}, {"activation": int_quantizer(4, "token")}, "input is int4/token, here"),
    "inputs not rounded": ({}, {"activation": None}, "input is None, here it is int8/token"),
    "another shift": ({}, {"transform": Smooth(torch.ones(64), shift=0.5)}, "transform is .*shift"),
    "another rotation": (
        {"transform": Rotate(64, seed=1, signed=True)}, {"transform": Rotate(64, seed=2, signed=True)},
        "transform is .*'seed': 2",
    ),
    # names and shapes that differ
    "8 bits": ({}, {"weight": int_quantizer(8, "group", 64)}, r"'codes' is \(64, 64\), expected \(64, 32\)"),
    "scales by channel": ({}, {"weight": int_quantizer(4, "channel")}, "'weight_scale' is"),
    "groups of 32": ({}, {"weight": int_quantizer(4, "group", 32)}, r"'weight_scale' is \(64, 2, 1\)"),
    "no smoothing": ({}, {"transform": None}, "it lacks 'transform.factor'"),
    "a branch too many": ({}, {"branch": True}, "it has 'branch.down', which it lacks"),
    "a branch too few": ({"branch": True}, {}, "it lacks 'branch.down'"),
}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", OTHERS)
def test_states_of_another_quantization(case: str, strict: bool) -> None:
    here, there, says = OTHERS[case]
    model, source = layers(**here), layers(seed=1, **there)
    state = source.state_dict()
    unchanged_and_refused(model, lambda: model.load_state_dict(state, strict=strict), says)
    unchanged_and_refused(
        model, lambda: model[3].load_state_dict(source[3].state_dict(), strict=strict), says
    )


def full_precision(state: State) -> None:
    for name in [key for key in state if key[0] in "13"]:
        del state[name]
    state |= {"1.weight": torch.zeros(64, 64), "1.bias": torch.zeros(64)}


EDITS: dict[str, tuple[Callable[[State], object], str]] = {
    "a full-precision layer": (full_precision, "is a full-precision layer's, and the layer is quantized"),
    "a weight beside codes": (
        lambda s: s.update({"3.weight": torch.zeros(64, 64)}),
        "full-precision layer's",
    ),
    "codes without scales": (lambda s: s.pop("3.weight_scale"), "'3' is of another .*lacks 'weight_scale'"),
    "scales without codes": (lambda s: s.pop("1.codes"), "'1' is of another .*it lacks 'codes'"),
    "no smoothing": (lambda s: s.pop("3.transform.factor"), "lacks 'transform.factor'"),
    "wide scales": (lambda s: s.update({"3.weight_scale": s["3.weight_scale"].float()}), "is torch.float32"),
    "half smoothing": (lambda s: s.update({"1.transform.factor": torch.ones(64).half()}), "is torch.float16"),
    "signed codes": (
        lambda s: s.update({"3.codes": s["3.codes"].view(torch.int8)}),
        "is torch.int8, expected",
    ),
    "codes as floats": (lambda s: s.update({"3.codes": s["3.codes"].float()}), "is torch.float32, expected"),
    "codes cut": (lambda s: s.update({"3.codes": s["3.codes"][:, :9]}), r"is \(64, 9\), expected \(64, 32\)"),
    "NaN scales": (lambda s: s.update({"3.weight_scale": s["3.weight_scale"] * torch.nan}), "is not finite"),
    "an infinite bias": (
        lambda s: s.update({"3.bias": torch.full((64,), torch.inf)}),
        "'bias' is not finite",
    ),
    "a list": (lambda s: s.update({"3.codes": [1, 2]}), "'codes' is a list, not a tensor"),
    "a whole bias": (lambda s: s.update({"1.bias": torch.zeros(64).int()}), "'bias' is torch.int32"),
    "an unknown entry": (lambda s: s.update({"3.zero_point": torch.zeros(1)}), "it has 'zero_point'"),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("edit", EDITS)
def test_states_that_were_edited(edit: str, strict: bool) -> None:
    model, state = layers(), dict(layers(seed=1).state_dict())
    change, says = EDITS[edit]
    change(state)
    unchanged_and_refused(model, lambda: model.load_state_dict(state, strict=strict), says)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_selection_is_loaded_whole_or_refused(data: st.DataObject) -> None:
    """Whatever there is: either refused and unchanged, or every layer is wholly old or wholly new."""
    model, source = layers(), layers(seed=1)
    old, new = copy.deepcopy(model.state_dict()), source.state_dict()
    chosen = data.draw(st.sets(st.sampled_from(sorted(new))))
    assign = data.draw(st.booleans())
    state = {name: new[name].clone() for name in sorted(chosen)}
    own = {name: {k for k in new if k.startswith(f"{name}.")} - {f"{name}.bias"} for name in ("1", "3")}
    whole = all(keys <= chosen or not keys & chosen for keys in own.values())
    if not whole:
        unchanged_and_refused(
            model, lambda: model.load_state_dict(state, False, assign), "another quantization"
        )
        return
    model.load_state_dict(state, strict=False, assign=assign)
    expected: dict[str, Tensor] = {name: state.get(name, value) for name, value in old.items()}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())
    reference = layers(seed=2)
    reference.load_state_dict(expected)
    assert torch.equal(model(X), reference(X))


@settings(max_examples=25, deadline=None)
@given(seeds=st.lists(st.integers(0, 5), min_size=1, max_size=4), kernels=st.booleans())
def test_loading_again_and_again_computes_what_was_loaded_last(seeds: list[int], kernels: bool) -> None:
    model = layers()
    for seed in seeds:
        source = layers(seed)
        model.load_state_dict(source.state_dict())
        with quant.use_backend(model, "kernels" if kernels else "simulated"):
            out = model(X)
        with quant.use_backend(source, "kernels" if kernels else "simulated"):
            assert torch.equal(out, source(X))


def test_states_through_files_and_other_wrappings(tmp_path) -> None:
    source = layers(seed=1)
    save_model(source, str(tmp_path / "m.safetensors"))
    torch.save(source.state_dict(), tmp_path / "m.pt")
    model = layers()
    assert load_model(model, tmp_path / "m.safetensors") == (set(), [])
    assert torch.equal(model(X), source(X))
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    other = layers(weight=E2M1)
    unchanged_and_refused(other, lambda: other.load_state_dict(state), "weight is int4/g64, here it is fp4")
    outer = nn.ModuleDict({"net": layers()})
    outer.load_state_dict(nn.ModuleDict({"net": source}).state_dict())
    assert torch.equal(outer["net"](X), source(X))


def test_a_restored_model_takes_any_state_again() -> None:
    model = layers()
    restore_(model)
    assert not model._load_state_dict_pre_hooks
    plain = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model(X), plain(X))


def test_attention_that_is_rounded_in_another_way() -> None:
    """Its formats and static scales are in no tensor."""
    fine = AttentionFormat(scores=int_quantizer(8, "tensor"), scale=0.01)
    made = []
    for fmt in (fine, fine, fine.model_copy(update={"scale": 0.02}), None):
        model = nn.ModuleDict({"net": layers(), "attn": Attention(64, heads=2, dim_head=32)})
        restore_(model["net"])
        quant.quantize_(model, "rtn-w8a8", include=["net.*"])
        if fmt is not None:
            install_attention_(model, {"attn": fmt})
        made.append(model)
    first, same, other, none = made
    assert first.load_state_dict(same.state_dict()).missing_keys == []
    for model in (other, none):
        for there, source in ((first, model), (model, first)):
            with pytest.raises(quant.InputError, match="whose attention is rounded in another way"):
                there.load_state_dict(source.state_dict())
    plain = {name: tensor for name, tensor in other.state_dict().items()}  # without PyTorch's metadata
    first.load_state_dict(plain)
