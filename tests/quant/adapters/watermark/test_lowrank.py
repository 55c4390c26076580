from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import quant
from quant.adapters.watermark.core import Decoder
from quant.adapters.watermark.lowrank import (
    LowRank,
    chosen_layers,
    merge_,
    read_about,
    read_deltas,
    write_key,
)
from quant.errors import InputError, MissingDataError


def factors_of(decoder: Decoder, rank: int = 4) -> LowRank:
    return LowRank(chosen_layers(decoder.model, ("decoder.*",), rank), rank, alpha=8.0)


def filled(decoder: Decoder) -> LowRank:
    factors = factors_of(decoder)
    torch.manual_seed(1)
    for up in factors.up:
        nn.init.normal_(up, std=0.05)
    return factors


def test_nothing_changes_while_b_is_zero_and_after_it_is_gone(decoder: Decoder) -> None:
    plain = decoder.decode(decoder.inputs)
    with factors_of(decoder).attached(decoder.model):
        assert torch.equal(decoder.decode(decoder.inputs), plain)
    with filled(decoder).attached(decoder.model):
        assert not torch.allclose(decoder.decode(decoder.inputs), plain)
    assert torch.equal(decoder.decode(decoder.inputs), plain)


def test_merged_equals_unmerged_and_can_be_taken_back(decoder: Decoder) -> None:
    factors, model = filled(decoder), decoder.model.double()
    inputs, before = decoder.inputs[:4].double(), {k: v.clone() for k, v in model.state_dict().items()}
    with factors.double().attached(model):
        beside = model(inputs)
    merge_(model, factors.deltas())
    assert torch.allclose(model(inputs), beside, atol=1e-12)
    merge_(model, factors.deltas(), sign=-1.0)
    assert all(torch.allclose(v, before[k], atol=1e-15) for k, v in model.state_dict().items())


def test_factors_do_what_their_layer_does() -> None:
    """Stride, dilation and padding by reflection; groups cannot be done and are refused."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=2, dilation=2, padding=2, padding_mode="reflect", dtype=torch.float64)
    model = nn.ModuleDict({"conv": conv})
    factors, x = LowRank({"conv": conv}, 2, alpha=6.0).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    nn.init.normal_(factors.up[0])
    with factors.attached(model):
        beside = conv(x)
    a, b = factors.down[0].flatten(1), factors.up[0][..., 0, 0]
    conv.weight.data += 6.0 / 2 * (b @ a).reshape(conv.weight.shape)
    assert torch.allclose(conv(x), beside, atol=1e-12)
    with pytest.raises(InputError, match="'conv' works in 3 groups of channels"):
        chosen_layers(nn.ModuleDict({"conv": nn.Conv2d(3, 6, 3, groups=3)}), ("conv",), 1)


def test_the_papers_number_of_parameters() -> None:
    """Last decoder stage of Stable Diffusion: three residual blocks, 256 -> 128 channels, r = 4."""
    widths = [(256, 128), *[(128, 128)] * 5]
    layers = {str(i): nn.Conv2d(a, b, 3, padding=1) for i, (a, b) in enumerate(widths)}
    assert sum(p.numel() for p in LowRank(layers, 4, 32.0).parameters()) == 35_328


def test_a_key_is_a_lora_in_peft_s_convention(decoder: Decoder, tmp_path: Path) -> None:
    factors, file = filled(decoder), tmp_path / "key.safetensors"
    write_key(file, factors, {"message": "10101010"})
    assert read_about(file)["message"] == "10101010"
    merged = decoder.decode(decoder.inputs)
    deltas = read_deltas(file, decoder.model)
    merge_(decoder.model, deltas)
    merged = decoder.decode(decoder.inputs)
    merge_(decoder.model, deltas, sign=-1.0)
    lora = quant.attach_lora(decoder.model, file)
    assert torch.allclose(decoder.decode(decoder.inputs), merged, atol=1e-5)
    assert lora.layers == factors.names


def test_what_does_not_fit_is_refused_in_one_line(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rank 99 is larger than layer"):
        chosen_layers(decoder.model, ("decoder.*",), 99)
    with pytest.raises(InputError, match="matches no convolution"):
        chosen_layers(decoder.model, ("up_blocks.*",), 4)
    with pytest.raises(MissingDataError, match="no LoRA at"):
        read_about(tmp_path / "none.safetensors")
    file = tmp_path / "key.safetensors"
    write_key(file, filled(decoder), {"message": ""})
    with pytest.raises(InputError, match="without a watermark's message"):
        read_about(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        read_about(file)
    other = nn.Sequential(nn.Conv2d(3, 3, 3))
    write_key(file, filled(decoder), {"message": "1"})
    with pytest.raises(InputError, match="has no layer"):
        read_deltas(file, other)
