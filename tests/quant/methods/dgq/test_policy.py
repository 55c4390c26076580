"""DGQ through `quantize_`: which attention is rounded and how, and how much of a recording is looked at."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor

import quant
from quant.denoisers.inventory import LayerInfo
from quant.formats.logs import LogGrid
from quant.layers.attention import find_attention
from quant.methods.dgq import DgqConfig
from quant.methods.dgq.attention import Mass, attention_formats
from quant.methods.dgq.core import formats

BLOCK = "mid_block.attentions.0.transformer_blocks.0"
QUICK = DgqConfig(groups=1, samples=1, axis="channel", attention_bits=4)
CONV = "mid_block.resnets.0.conv1"


def attention_of(tiny, store, config: DgqConfig = QUICK, **options) -> dict:
    return quant.quantize_(tiny.build("unet"), config, trajectories=store, **options).attention


def test_attention_belongs_to_its_projections(tiny, recorded) -> None:
    store = recorded("unet")
    every = set(find_attention(tiny.build("unet")))
    first, second = ({n for n in every if n.endswith(part)} for part in ("attn1", "attn2"))
    assert set(attention_of(tiny, store)) == every
    assert attention_of(tiny, store, include=["mid_block.resnets.*"]) == {}
    assert set(attention_of(tiny, store, include=[f"{BLOCK}.attn1.to_v"])) == {f"{BLOCK}.attn1"}
    assert attention_of(tiny, store, include=[f"{BLOCK}.attn1.to_out.0"]) == {}
    assert set(attention_of(tiny, store, exclude=["*.attn1.*"])) == second
    assert set(attention_of(tiny, store, overrides={"*.attn2.*": "skip"})) == first
    assert set(attention_of(tiny, store, overrides={"*.attn1.*": {"attention": "none"}})) == second


def test_attention_is_rounded_by_its_projections_settings(tiny, recorded) -> None:
    silent = QUICK.model_copy(update={"attention": "none"})
    found = attention_of(
        tiny, recorded("unet"), silent,
        overrides={
            f"{BLOCK}.attn2.*": {"attention": "log", "attention_bits": 3, "value_bits": None},
            f"{BLOCK}.attn1.to_[qk]": {"attention": "uniform"},
        },
    )  # fmt: skip
    assert set(found) == {f"{BLOCK}.attn1", f"{BLOCK}.attn2"}
    assert found[f"{BLOCK}.attn2"].scores.bits == 3 and found[f"{BLOCK}.attn2"].values is None
    assert found[f"{BLOCK}.attn1"].scores.label == "int4 unsigned/sample"
    # queries, then keys, then values: the first that the plan quantizes decides
    assert attention_of(
        tiny, recorded("unet"), overrides={f"{BLOCK}.attn1.to_v": {"attention": "none"}}, include=["*attn1*"]
    )


def test_attention_that_goes_another_way_is_refused(tiny, recorded) -> None:
    model = tiny.build("unet")
    model.set_attn_processor(AttnProcessor())
    with pytest.raises(quant.InputError, match=r"\(AttnProcessor\) does not call scaled_dot") as caught:
        quant.quantize_(model, QUICK, trajectories=recorded("unet"))
    assert "\n" not in str(caught.value) and not quant.layers.install.quant_layers(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.overrides._len_torch_function_stack() == 0
    quiet = QUICK.model_copy(update={"attention": "none"})
    assert not quant.quantize_(model, quiet, trajectories=recorded("unet")).attention


def masses(column: int | None, strength: float, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(4, 2, 9, 12, generator=torch.Generator().manual_seed(seed))
    if column is not None:
        logits[..., column] += strength
    return logits.softmax(-1)


def test_static_scale_leaves_the_sinks_column_out() -> None:
    scores = masses(3, 8.0)
    mass = Mass()
    for part in scores.split(2):
        mass(part, part)
    rest = scores[..., [i for i in range(12) if i != 3]]
    config = DgqConfig(attention="static-log", attention_bits=4)
    fmt = attention_formats({"a": mass}, {"a": config})["a"]
    assert fmt.sink == 3 and fmt.scale == float(rest.max()) < 0.2 < float(scores.max())
    assert float(fmt.quantize_scores(scores)[..., 4].max()) <= fmt.scale * (1 + 1e-6)
    never = attention_formats({"a": mass}, {"a": config.model_copy(update={"sink_share": 1.0})})["a"]
    assert never.sink is None and never.scale == float(scores.max())
    back = Mass()
    for part in (scores[1:], scores[:1], scores[:1] * 0.1):  # wherever it comes
        back(part, part)
    assert back.largest() == float(scores.max()) and back.largest(3) == float(rest.max())
    mass(scores[..., :5], scores)  # another number of keys: the largest of all
    assert mass.largest() == float(scores.max())


def test_sink_is_the_mean_over_all_calls_and_reaches_the_format() -> None:
    mass = Mass()
    for column, strength in ((3, 6.0), (3, 6.0), (None, 0.0)):  # the last call alone has none
        mass(masses(column, strength), torch.zeros(()))
    assert mass.count == 3 * 4 * 2 * 9
    fmt = attention_formats({"a": mass}, {"a": DgqConfig()})["a"]
    assert fmt.sink == 3
    assert fmt.scores.bits == 6 and fmt.values.label == "int8/token" and not fmt.keep_sums
    own = DgqConfig(attention_bits=3, value_bits=4, attention_keep_sums=True, attention_octaves=5)
    fmt = attention_formats({"a": mass}, {"a": own})["a"]
    assert fmt.scores.label == "log3 unsigned/sample" and fmt.values.bits == 4 and fmt.keep_sums
    assert fmt.scores.grid.octaves == 5
    weak = Mass()
    weak(masses(3, 3.0), torch.zeros(()))
    share = float(weak.total[3] / weak.count)
    assert 0.4 < share < 0.8 and weak.sink(DgqConfig().sink_share) == 3  # a quarter is enough by default
    assert weak.sink(share + 0.01) is None
    few = Mass()  # a third of the mass is not much among four keys: a sink has three times its fair part
    few(torch.tensor([0.34, 0.22, 0.22, 0.22]).expand(1, 1, 3, 4), torch.zeros(()))
    assert few.sink(0.25) is None


def test_planted_sink_is_installed(tiny, tmp_path) -> None:
    """Every query is the same vector, and one token's key points its way."""
    conditions = torch.randn(4, 14, 24, generator=torch.Generator().manual_seed(2))
    conditions[:, 5] = 3.0
    model = tiny.build("unet")
    block = model.get_submodule(BLOCK)
    with torch.no_grad():
        block.norm2.weight.zero_()
        block.norm2.bias.fill_(1.0)
        query = block.attn2.to_q(block.norm2.bias)
        block.attn2.to_k.weight.copy_(query[:, None].expand(-1, 24) * 10)
    store = quant.record(model, FlowMatchEulerDiscreteScheduler(), conditions, tmp_path / "s", n_steps=2)
    found = quant.quantize_(model, QUICK, trajectories=store, include=[f"{BLOCK}.*"]).attention
    assert found[f"{BLOCK}.attn2"].sink == 5 and found[f"{BLOCK}.attn1"].sink is None


def test_all_samples_asked_for_are_looked_at(tiny, recorded) -> None:
    scales = []
    for samples in (1, 64):
        model = tiny.build("unet")
        config = DgqConfig(groups=1, axis="channel", samples=samples)
        quant.quantize_(model, config, trajectories=recorded("unet"), include=[CONV])
        scales.append(model.get_submodule(CONV).input_quantizer.scale)
    assert (scales[1] >= scales[0]).all() and not torch.equal(*scales)


def test_weights_are_searched_for_the_published_norm() -> None:
    layer = LayerInfo("x", "Linear", (8, 64), 1, 0, True)
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) ** 3
    quantizer = formats(layer, DgqConfig(weight_bits=3)).weight

    def error(quantizer) -> float:
        return float((quantizer.fake(weight, "linear_weight") - weight).abs().pow(2.4).sum())

    others = [quantizer.observer.model_copy(update={"norm": norm}) for norm in (1.0, 2.0, 4.0)]
    assert all(error(quantizer) < error(quantizer.model_copy(update={"observer": o})) for o in others)


@pytest.mark.parametrize("bits", [4, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_is_the_last_code(bits: int, dtype: torch.dtype) -> None:
    grid = LogGrid(bits=bits, octaves=float(2**bits - 1), signed=False)
    params = {"scale": torch.ones(1)}
    assert grid.encode(torch.tensor([1.0, 0.0], dtype=dtype), params).tolist() == [0, 2**bits - 1]
    assert grid.encode(torch.zeros(2, dtype=dtype), {"scale": torch.ones(1)}).tolist() == [2**bits - 1] * 2
