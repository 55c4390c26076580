"""Recordings against models, sizes by config in any dtype, and layers that a forward never reaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

import quant
from quant.denoisers import families, macs
from quant.denoisers.macs import count_macs, input_sizes

CALIBRATED = [m for m in quant.list_methods() if quant.get_method(m).info.needs_calibration]


def first(method: str) -> str:
    return next(p for p in quant.list_presets() if quant.get_preset(p).method == method)


@pytest.mark.parametrize(("name", "of"), [("sd3", "flux"), ("pixart", "unet"), ("unet", "pixart")])
def test_another_familys_recording_is_refused(name: str, of: str, family, store) -> None:
    with pytest.raises(quant.InputError, match=r"is of another model: it (was made with a|has)") as caught:
        quant.quantize_(family.build(name), "mixdq-w8a8", trajectories=store(of))
    assert "\n" not in str(caught.value)


def test_labels_out_of_range_are_refused(family, store, tmp_path: Path) -> None:
    model = family.build("dit")
    for labels, says in ((torch.tensor([3, 11]), "class label 11, .* takes 0 to 10"), (None, "no class lab")):
        with pytest.raises(quant.InputError, match=says):
            quant.record(
                model, FlowMatchEulerDiscreteScheduler(), labels, tmp_path / "r", n_steps=1, n_samples=2
            )
    few = family.build("dit", num_embeds_ada_norm=4)
    with pytest.raises(quant.InputError, match=r"class label 5, .* takes 0 to 4"):
        quant.quantize_(few, "mixdq-w8a8", trajectories=store("dit"))
    with pytest.raises(quant.InputError, match="takes no condition"):
        quant.record(
            family.build("unconditional"), FlowMatchEulerDiscreteScheduler(), torch.tensor([1, 2]),
            tmp_path / "r", n_steps=1,
        )  # fmt: skip


@pytest.mark.parametrize("method", CALIBRATED)
def test_an_empty_calibration_subset_is_missing_data(method: str, family, tmp_path: Path) -> None:
    model = family.build("unet")
    scheduler, one = FlowMatchEulerDiscreteScheduler(), family.conditions("unet", model)[:1]
    store = quant.record(model, scheduler, one, tmp_path, n_steps=1)
    assert store.keys("calibrate") == []
    with pytest.raises(quant.MissingDataError, match="has 1 samples and none in 'calibrate'"):
        quant.quantize_(model, first(method), trajectories=store)


def test_an_autoencoder_is_no_denoiser(store) -> None:
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    with pytest.raises(quant.InputError, match="is an autoencoder, not a denoiser"):
        quant.quantize_(vae, "svdquant-w4a4", trajectories=store("unet"))


@pytest.mark.parametrize("name", ["unet", "pixart", "flux"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_macs_and_sizes_do_not_depend_on_the_dtype(name: str, dtype: torch.dtype, family, store) -> None:
    plain, twin = family.build(name), family.build(name).to(dtype)
    assert count_macs(twin, None) == count_macs(plain, None)
    for recording in (None, store(name)):
        assert input_sizes(twin, recording) == input_sizes(plain, recording) is not None
    given = families.example(twin)
    assert count_macs(twin, given)[0] == count_macs(plain, None)[0]


@pytest.mark.parametrize("name", ["unet", "unconditional", "dit", "pixart", "sd3", "flux"])
def test_small_models_give_the_same_by_arithmetic_and_without(name: str, family, store, monkeypatch) -> None:
    model = family.build(name).train()
    model.register_buffer("seen", torch.zeros(1))
    model.register_forward_hook(lambda m, *_: (m.seen.add_(1), torch.rand(1)) and None)
    before = torch.get_rng_state()
    found = count_macs(model, None), input_sizes(model, store(name))
    assert torch.equal(torch.get_rng_state(), before) and not model.seen.any()
    monkeypatch.setattr(macs, "SMALL", (0, 0))  # without: on the meta device
    assert (count_macs(model, None), input_sizes(model, store(name))) == found


@pytest.mark.parametrize("size", ["big", -8, 0, 10**9, (8,), 8.5])
def test_impossible_sample_sizes_are_one_line(size: object, family) -> None:
    model = family.build("unet")
    model.register_to_config(sample_size=size)
    with pytest.raises(quant.InputError, match=r"sample_size = .* from 1 to 65536"):
        quant.plan(model, "rtn-w8a8")


def test_large_samples_take_no_memory(family) -> None:
    model = family.build("unet", sample_size=1 << 14)  # 4 GiB of zeros
    args, _ = families.example(model, device="meta")
    assert args[0].is_meta and sum(count_macs(model, None)[0].values()) > 0


def test_width_by_block_is_read_where_all_are_the_same(family, store) -> None:
    model = family.build("unet", cross_attention_dim=(24, 24))
    assert sum(count_macs(model, None)[0].values()) > 0
    quant.quantize_(model, "mixdq-w8a8", trajectories=store("unet"))


@pytest.mark.parametrize("preset", ["mixdq-w8a8", "dgq-w4a8"])
def test_layers_that_never_run_are_left_out_and_named(preset: str, family, store) -> None:
    model = family.build("unet", time_cond_proj_dim=8)
    name = "time_embedding.cond_proj"
    planned = quant.plan(model, preset, trajectories=store("unet"))
    line = next(line for line in planned.layers if line.name == name)
    assert line.skipped and "does not reach it" in (line.reason or "")
    assert next(x for x in quant.plan(model, "rtn-w8a8").layers if x.name == name).macs == 0
    ledger = quant.quantize_(model, preset, trajectories=store("unet"))
    assert next(record for record in ledger.layers if record.name == name).skipped


def test_a_layer_without_any_input_is_missing_data(family, store) -> None:
    """Where multiply-accumulates could not be counted, it is found out while calibrating."""
    model = family.build("unet", time_cond_proj_dim=8)
    wrong = ((torch.zeros(1),), {})
    with pytest.raises(quant.MissingDataError, match=r"'time_embedding\.cond_proj' never ran"):
        quant.quantize_(model, "mixdq-w8a8", trajectories=store("unet"), example=wrong)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_tokens_that_were_not_packed_are_refused(name: str, family, store, tmp_path: Path) -> None:
    """Their last row would be taken for pooled text, without a word."""
    model, packed = family.build(name), family.conditions(name, family.build(name))
    tokens = torch.randn(6, 8, 24, generator=torch.Generator().manual_seed(0))
    says = r"tokens alone, .* takes pooled_projections.*families\.pack\(model, tokens, pooled_projections="
    cases = ((tokens, None, 1.0), (packed, tokens[0], 2.0), (tokens[:, :1], None, 1.0))
    for conditions, null, guidance in cases:
        with pytest.raises(quant.InputError, match=says):
            quant.record(
                model, FlowMatchEulerDiscreteScheduler(), conditions, tmp_path / "r", n_steps=1,
                shape=(4, 8, 8), null_condition=null, guidance=guidance,
            )  # fmt: skip
    assert not (tmp_path / "r").exists()
    assert families.not_packed(model, packed) is None
    assert families.not_packed(model, torch.zeros_like(packed[0])) is None, "a null condition of zeros"


def test_parts_that_stay_in_float32_do_not_say_the_dtype(family) -> None:
    """Wan read in bfloat16 keeps its first parameter, and some others, in float32."""
    model = family.build("wan").to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if set(name.split(".")) & set(model._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    assert next(model.parameters()).dtype == torch.float32
    x, tokens = torch.randn(1, 4, 3, 8, 8), family.conditions("wan", model)[:1]
    with torch.no_grad():
        out = families.call(model, x, torch.tensor([500.0]), tokens)
    assert out.dtype == torch.bfloat16 and bool(out.isfinite().all())
