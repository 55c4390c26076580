"""Backbones: taps of the residual stream, shifted pictures, DINOv2 from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from brainit.errors import InputError, MissingDataError
from brainit.voxels.universal.backbone import dinov2, shifted

SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 7,
    "image_size": 28,
}


def test_taps_are_the_hidden_states_without_registers(tmp_path: Path) -> None:
    config = Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4)
    model = Dinov2WithRegistersModel(config).eval()
    model.save_pretrained(tmp_path)
    backbone = dinov2(tmp_path, side=28)
    images = torch.rand(2, 3, 28, 28)
    mean, spread = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        whole = model((images - mean) / spread, output_hidden_states=True).hidden_states
        found = backbone(images, (0, 1, 3))
    for tap, tokens in zip((0, 1, 3), found, strict=True):
        expected = torch.cat([whole[tap][:, :1], whole[tap][:, 5:]], 1)
        torch.testing.assert_close(tokens, expected)
    assert tokens.shape == (2, 17, 12)
    with pytest.raises(InputError, match="multiple"):
        dinov2(tmp_path, side=30)


def test_reads_the_kind_without_registers_and_refuses_others(tmp_path: Path) -> None:
    from transformers import Dinov2Config, ViTConfig, ViTModel

    Dinov2Model(Dinov2Config(**SIZES)).save_pretrained(tmp_path / "a")
    assert dinov2(tmp_path / "a", side=28)(torch.rand(1, 3, 56, 56), (2,))[0].shape == (1, 17, 12)
    ViTModel(ViTConfig(**SIZES, intermediate_size=8)).save_pretrained(tmp_path / "b")
    with pytest.raises(InputError, match="'vit'; allowed: dinov2, dinov2_with_registers"):
        dinov2(tmp_path / "b")
    with pytest.raises(MissingDataError, match="does not exist"):
        dinov2(tmp_path / "c")


def test_shift_repeats_the_edge() -> None:
    picture = torch.arange(12.0).view(1, 1, 3, 4).expand(2, 3, 3, 4)
    moved = shifted(picture, torch.tensor([[1, 0], [0, -2]]))
    assert moved[0, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert moved[1, 2].tolist() == [[2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]
