from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quant.adapters.watermark.config import WatermarkConfig
from quant.adapters.watermark.core import Decoder
from quant.adapters.watermark.extractor import Extractor

SMALL = {
    "bits": 8, "layers": ("decoder.0", "decoder.3"), "rank": 4, "mapper_rank": 8, "extractor_batch": 8,
    "extractor_steps": 60, "key_batch": 8, "key_steps": 60, "extractor_rate": 2e-3, "key_rate": 5e-3,
}  # fmt: skip


class TinyDecoder(nn.Module):
    """A latent of 4 x 8 x 8 to a picture of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            nn.Conv2d(4, 32, 3, padding=1), nn.PixelShuffle(2), nn.SiLU(), nn.Conv2d(8, 12, 3, padding=1),
            nn.Upsample(scale_factor=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(latents))


@pytest.fixture
def config() -> WatermarkConfig:
    return WatermarkConfig(**SMALL)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    model = TinyDecoder().requires_grad_(False)
    return Decoder(model, model, torch.randn(64, 4, 8, 8))


@pytest.fixture
def reader() -> Extractor:
    torch.manual_seed(3)
    reader = Extractor(8).eval()
    reader.fold()
    return reader.requires_grad_(False)
