"""A tiny bench: random denoiser, a decoder that is one matrix, no pretrained networks but a random one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

import quant
from lab.compare.bench import Bench, PanelSettings
from lab.compare.networks import DOMAIN, Networks
from lab.zoo.recordings import zoo_scheduler

N = 12


class SmallFeatures(Networks):
    """Moments of local patches: enough for set distances, no weights needed."""

    def features(self, images: torch.Tensor, batch: int = 128) -> dict[str, torch.Tensor]:
        local = torch.nn.functional.avg_pool2d(images, 4).flatten(1)[:, ::8]
        steps = (images[..., 1:] - images[..., :-1]).square().mean((2, 3))
        colour = images.mean((2, 3))
        return {DOMAIN: torch.cat([local, 30 * steps, colour], 1).double(), "head": local.double()}


class Micro(nn.Module):
    """A denoiser of four layers; `mid_block` is what the gate silences."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.tokens = nn.Conv2d(4, 32, 3, padding=1), nn.Linear(24, 32)
        self.mid_block = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 32, 1))
        self.last = nn.Conv2d(32, 4, 3, padding=1)

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        held = self.tokens(encoder_hidden_states).mean(1)[..., None, None]
        hidden = torch.tanh(self.first(x) + held + timestep.reshape(-1, 1, 1, 1) / 1000)
        return self.last(hidden + self.mid_block(hidden))


def tiny_unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32,),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
    ).eval()


def decode(latents: torch.Tensor) -> torch.Tensor:
    x = torch.nn.functional.interpolate(latents[:, :3], scale_factor=4, mode="bilinear")
    return x.mul(0.2).add(0.5).clamp(0, 1)


def _record(model: nn.Module, folder: Path, side: int) -> quant.Trajectories:
    conditions = torch.randn(20, 7, 24, generator=torch.Generator().manual_seed(5))
    return quant.record(
        model,
        zoo_scheduler(),
        conditions,
        folder,
        n_steps=2,
        shape=(4, side, side),
        guidance=2.0,
        null_condition=torch.zeros(7, 24),
    )


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> quant.Trajectories:
    return _record(tiny_unet(), tmp_path_factory.mktemp("recording") / "unet", 4)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    store = _record(Micro().eval(), tmp_path_factory.mktemp("recording") / "micro", 8)
    generator = torch.Generator().manual_seed(6)
    return Bench(
        name="tiny",
        settings=PanelSettings(n=N, seeds=2, steps=2, calibrate=8, forced=4),
        device=torch.device("cpu"),
        model=Micro().eval(),
        recording=store,
        scheduler=zoo_scheduler(),
        shape=(4, 8, 8),
        conditions=torch.randn(N, 7, 24, generator=generator),
        null=torch.zeros(7, 24),
        sources=torch.rand(N, 3, 32, 32, generator=generator),
        decode=decode,
        networks=SmallFeatures(),
        conditions_are="random",
    )


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_unet().save_pretrained(folder)
    return folder
