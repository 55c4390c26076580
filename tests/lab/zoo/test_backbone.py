"""The zoo's encoder as a backbone: what it reads is what the encoder computes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lab import zoo
from lab.zoo.models.backbone import zoo_backbone


def test_the_last_tap_makes_the_encoders_tokens() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    encoder, backbone = zoo.load("encoder-64"), zoo_backbone()
    with torch.no_grad():
        first, last = backbone(images, (0, 4))
        tokens = encoder(images)
        assert first.shape == last.shape == (2, 65, 192)
        torch.testing.assert_close(F.layer_norm(encoder.global_out(last[:, 0]), (192,)), tokens[:, 0])
        grid = F.avg_pool2d(last[:, 1:].transpose(1, 2).reshape(2, 192, 8, 8), 2)
        patches = encoder.patch_out(grid.flatten(2).transpose(1, 2))
    torch.testing.assert_close(F.layer_norm(patches, (192,)), tokens[:, 1:])
