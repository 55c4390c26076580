"""Quantized attention: the formula, hooks that leave no trace, the log grid, the measured sink."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import quant
from quant.formats.quantizer import int_quantizer
from quant.layers.attention import (
    AttentionFormat,
    Rounding,
    attend,
    attention_watchers,
    find_attention,
    install_attention_,
    remove_attention_,
)
from quant.methods.dgq import DgqConfig
from quant.methods.dgq.attention import Mass, score_quantizer

SDPA = torch.nn.functional.scaled_dot_product_attention


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(sink: int | None = None) -> torch.Tensor:
    logits = rand(3, 2, 9, 7) * 3
    if sink is not None:
        logits[..., sink] += 6
    return logits.softmax(-1)


def same(scores, values, hidden):
    return scores, values


@pytest.mark.parametrize("case", ["plain", "bool", "nothing", "float", "padding", "causal", "scale", "gqa"])
def test_formula_is_pytorchs(case: str) -> None:
    q, k, v = rand(2, 4, 5, 8), rand(2, 4, 5, 8, seed=1), rand(2, 4, 5, 8, seed=2)
    if case == "gqa":
        k, v = k[:, :2], v[:, :2]
    nothing = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    nothing[0, :, 3] = nothing[:, :, :, 4] = False  # a query without any key: 0 there, not NaN
    options = {
        "plain": {}, "bool": {"attn_mask": rand(2, 1, 5, 5) > -1}, "float": {"attn_mask": rand(2, 1, 5, 5)},
        "nothing": {"attn_mask": nothing},
        "padding": {"attn_mask": (nothing[:, :, :1].double() - 1) * 1e4},
        "causal": {"is_causal": True}, "scale": {"scale": 0.3}, "gqa": {"enable_gqa": True},
    }[case]  # fmt: skip
    torch.testing.assert_close(attend(q, k, v, look=same, **options), SDPA(q, k, v, **options))


@pytest.mark.parametrize("keep_sums", [False, True])
@pytest.mark.parametrize("sink", [None, 0])
@pytest.mark.parametrize("way", ["bool", "bias", "causal"])
def test_hidden_keys_stay_hidden(way: str, sink: int | None, keep_sums: bool) -> None:
    """A logarithm has no code for 0: 2^-7 of the largest on each of 100 padded tokens would be most of it."""
    q, k, v = rand(2, 2, 6, 8), rand(2, 2, 6, 8, seed=1), rand(2, 2, 6, 8, seed=2)
    shown = (
        torch.ones(6, 6, dtype=torch.bool).tril() if way == "causal" else (torch.arange(6) < 4).expand(6, 6)
    )
    options = {
        "causal": {"is_causal": True}, "bool": {"attn_mask": shown[None, None]},
        "bias": {"attn_mask": (shown.double() - 1)[None, None] * 1e4},
    }[way]  # fmt: skip
    fmt = AttentionFormat(scores=score_quantizer("log", 2), sink=sink, keep_sums=keep_sums)
    out = attend(q, k, v, look=Rounding(fmt), **options)
    other = v.clone()
    other[:, :, 5] = 1e6  # what a hidden token says
    rows = slice(0, 5)
    assert torch.equal(attend(q, k, other, look=Rounding(fmt), **options)[:, :, rows], out[:, :, rows])
    plain = (q @ k.mT / 8**0.5).masked_fill(~shown, -torch.inf).softmax(-1)
    rounded = fmt.quantize_scores(plain).where(shown, 0.0)
    if keep_sums:
        column = 0.0 if sink is None else rounded[..., :1] * torch.eye(6)[0]
        rest = rounded - column
        rounded = column + rest * (
            (1 - rounded[..., :1] * (sink is not None)) / rest.sum(-1, True).clamp(min=1e-30)
        )
        rounded = rounded.where(rest.sum(-1, True) > 0, column + 0 * rest)
    torch.testing.assert_close(out, rounded @ v, rtol=1e-5, atol=1e-6)


def test_a_query_that_sees_nothing_gives_nothing() -> None:
    shown = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    shown[:, :, 1] = False
    fmt = AttentionFormat(scores=score_quantizer("log", 4))
    out = attend(rand(1, 1, 3, 8), rand(1, 1, 4, 8), rand(1, 1, 4, 8), shown, look=Rounding(fmt))
    assert not out[:, :, 1].any() and out[:, :, [0, 2]].isfinite().all()


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_log_scores(bits: int) -> None:
    scores = probabilities()
    fmt = AttentionFormat(scores=score_quantizer("log", bits))
    out = fmt.quantize_scores(scores)
    top = scores.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(out.amax((1, 2, 3), keepdim=True), top, rtol=1e-6, atol=0)
    inside = scores >= top * 2.0 ** -(2**bits - 1)
    ratio = (out / scores)[inside]
    assert ratio.min() >= 2**-0.5 - 1e-6 and ratio.max() <= 2**0.5 + 1e-6
    torch.testing.assert_close(fmt.quantize_scores(out), out, rtol=1e-6, atol=0)
    assert torch.isfinite(fmt.quantize_scores(torch.zeros_like(scores))).all()
    zero = scores.clone()
    zero[0, 0, 0, 0] = 0.0
    codes, _ = fmt.scores.encode(zero, "linear_input")
    assert codes[0, 0, 0, 0] == 2**bits - 1


def test_sink_column_is_untouched_and_the_split_is_exact() -> None:
    scores, values = probabilities(sink=2), rand(3, 2, 7, 8)
    fmt = AttentionFormat(scores=score_quantizer("log", 4), sink=2)
    out = fmt.quantize_scores(scores)
    assert torch.equal(out[..., 2], scores[..., 2])
    rest = [0, 1, 3, 4, 5, 6]
    two_terms = scores[..., 2:3] @ values[..., 2:3, :] + out[..., rest] @ values[..., rest, :]
    torch.testing.assert_close(out @ values, two_terms, rtol=1e-12, atol=1e-12)
    # with the sink's peak gone, s is that of the others
    top = scores[..., rest].amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(out[..., rest].amax((1, 2, 3), keepdim=True), top, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sink", [None, 2])
def test_sums_can_be_kept(sink: int | None) -> None:
    scores = probabilities(sink)
    free = AttentionFormat(scores=score_quantizer("log", 4), sink=sink)
    kept = free.model_copy(update={"keep_sums": True})
    drift = (free.quantize_scores(scores).sum(-1) - 1).abs()
    out = kept.quantize_scores(scores)
    assert drift.max() > (0.02 if sink is None else 1e-4)
    torch.testing.assert_close(out.sum(-1), torch.ones_like(drift), rtol=1e-6, atol=1e-6)
    if sink is not None:
        assert torch.equal(out[..., sink], scores[..., sink])
    assert torch.equal(kept.quantize_scores(scores[:1]), out[:1])  # of its own row, not of the batch
    uniform = AttentionFormat(scores=score_quantizer("uniform", 2), keep_sums=True)
    assert torch.equal(uniform.quantize_scores(torch.zeros(1, 1, 2, 3)), torch.zeros(1, 1, 2, 3))


def test_values_have_a_scale_for_each_channel_of_a_head() -> None:
    values = rand(2, 3, 7, 8) * torch.logspace(-2, 2, 8, dtype=torch.float64)
    fmt = AttentionFormat(values=int_quantizer(8, "token"))
    scale = (values.abs().amax(2, keepdim=True) / 127).float().double()
    expected = (values / scale).round() * scale
    torch.testing.assert_close(fmt.quantize_values(values), expected, rtol=1e-12, atol=0)


def test_probabilities_are_never_of_half_precision() -> None:
    q, k, v = (rand(1, 2, 5, 8, seed=i).bfloat16() for i in range(3))
    seen = []
    out = attend(q, k, v, look=lambda scores, values, hidden: seen.append(scores.dtype) or (scores, values))
    assert seen == [torch.float32] and out.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["log", "uniform", "static-log"])
def test_an_image_does_not_depend_on_its_batch(kind: str) -> None:
    scores, values = probabilities(), rand(3, 2, 7, 8)
    scores[1] *= 0.01
    scale = 1.0 if kind == "static-log" else None
    fmt = AttentionFormat(scores=score_quantizer(kind, 4), values=int_quantizer(8, "token"), scale=scale)
    for i in range(3):
        assert torch.equal(fmt.quantize_scores(scores)[i], fmt.quantize_scores(scores[i : i + 1])[0])
        assert torch.equal(fmt.quantize_values(values)[i], fmt.quantize_values(values[i : i + 1])[0])


def test_uniform_below_static_log_below_dynamic_log() -> None:
    scores = probabilities(sink=0)[..., 1:]  # the bulk, whose largest value differs between images
    scores = scores * torch.tensor([1.0, 0.1, 0.01])[:, None, None, None]

    def error(kind: str, bits: int, scale: float | None = None) -> float:
        out = AttentionFormat(scores=score_quantizer(kind, bits), scale=scale).quantize_scores(scores)
        return float(((out - scores) / scores.amax((1, 2, 3), keepdim=True)).norm())

    assert error("static-log", 4, 1.0) < error("uniform", 4, 1.0 / 15)
    assert error("log", 4) < error("uniform", 4, 1.0 / 15)
    # at 3 bits the smallest of eight powers of two is above most of a small image's scores: s must follow
    assert error("log", 3) < 0.5 * error("static-log", 3, 1.0)


@pytest.mark.parametrize("column", [0, 3, None])
def test_sink_is_found_where_it_is(column: int | None) -> None:
    mass = Mass()
    scores = probabilities(column)
    assert mass(scores, scores)[0] is scores
    assert mass.sink(0.25) == column and mass.sink(1.0) is None
    mass(scores[..., :5], scores)  # another number of keys: no fixed column
    assert mass.sink(0.25) is None


@pytest.mark.parametrize("name", ["unet", "pixart"])
def test_hooks_change_the_output_and_leave_no_trace(name: str, tiny) -> None:
    model = tiny.build(name)
    before = tiny.run(model, name)
    modules = find_attention(model)
    assert modules and all(".attn" in m for m in modules)
    install_attention_(model, {m: AttentionFormat() for m in modules})
    torch.testing.assert_close(
        tiny.run(model, name), before, rtol=1e-4, atol=1e-5
    )  # the formula, no rounding
    remove_attention_(model)
    install_attention_(model, {m: AttentionFormat(scores=score_quantizer("log", 2)) for m in modules})
    after = tiny.run(model, name)
    assert (after - before).abs().max() > 1e-4
    twin = copy.deepcopy(model)
    remove_attention_(model)
    assert torch.equal(tiny.run(model, name), before) and torch.equal(tiny.run(twin, name), after)
    with pytest.raises(quant.InputError, match="no attention module 'nowhere'"):
        install_attention_(model, {"nowhere": AttentionFormat()})


def test_an_error_inside_leaves_the_mode(tiny) -> None:
    model = tiny.build("unet")
    install_attention_(model, {m: AttentionFormat() for m in find_attention(model)})
    x, condition = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 11)  # the wrong width
    with pytest.raises(RuntimeError):
        model(x, 5.0, encoder_hidden_states=condition)
    assert torch.overrides._len_torch_function_stack() == 0
    assert not any(w.stack for w in attention_watchers(model).values())


def test_a_processor_that_goes_another_way_is_refused_when_it_runs(tiny) -> None:
    """It was set after calibration, or before `load`: nothing would be rounded, and nothing would say so."""
    model = tiny.build("unet")
    name = find_attention(model)[0]
    install_attention_(model, {name: AttentionFormat(scores=score_quantizer("log", 2))})
    module = model.get_submodule(name)
    module.set_processor(AttnProcessor())
    x = torch.randn(1, 16, 64)
    with pytest.raises(quant.InputError, match=r"\(AttnProcessor\) does not call scaled_dot") as caught:
        module(x)
    assert "\n" not in str(caught.value) and torch.overrides._len_torch_function_stack() == 0
    module.set_processor(AttnProcessor2_0())
    assert module(x).isfinite().all()


def test_method_round_trip(tiny, tmp_path) -> None:
    conditions = torch.randn(8, 7, 24, generator=torch.Generator().manual_seed(2))
    model, folder = tiny.build("unet"), tmp_path / "s"
    store = quant.record(model, FlowMatchEulerDiscreteScheduler(), conditions, folder, n_steps=3)
    config = DgqConfig(groups=2, axis="channel", match="nearest", attention_bits=4)
    before = tiny.run(model, "unet")
    ledger = quant.quantize_(model, config, trajectories=store)
    after = tiny.run(model, "unet")
    assert set(ledger.attention) == set(find_attention(model))
    assert all(fmt.scores.label == "log4 unsigned/sample" for fmt in ledger.attention.values())
    assert quant.Ledger.from_json(ledger.to_json()) == ledger
    bare = tiny.build("unet", seed=9)
    quant.load(quant.export(model, tmp_path / "m.safetensors"), bare)
    assert torch.equal(tiny.run(bare, "unet"), after)
    with quant.enabled(model, False):
        assert torch.equal(tiny.run(model, "unet"), before)
    quant.restore_(model)
    assert torch.equal(tiny.run(model, "unet"), before)
    quant.quantize_(model, config.model_copy(update={"attention": "none"}), trajectories=store)
    assert not torch.equal(tiny.run(model, "unet"), after)


def test_finer_steps_help_where_there_are_bits_for_them() -> None:
    """One octave a code is as coarse at 8 bits as at 4; 12 octaves over all codes are not."""
    scores = torch.randn(2, 3, 40, 64, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)

    def error(bits: int, octaves: float | None) -> float:
        return float((score_quantizer("log", bits, octaves).fake(scores, "linear_input") - scores).norm())

    assert error(8, None) > 0.9 * error(5, None)
    assert error(8, 12.0) < error(6, 12.0) / 2 < error(6, None) / 4
