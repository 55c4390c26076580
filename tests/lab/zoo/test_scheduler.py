"""Sampling that sets out from a picture is recorded as it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import quant
from lab.zoo.recordings import recorded_scheduler
from lab.zoo.sampling import SamplerSettings, draw_noise, sample
from lab.zoo.scheduler import PartwayFlowScheduler


def drawn(n: int, *shape: int) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_recording_from_a_start_is_what_the_decoder_does(
    denoiser: nn.Module, tmp_path: Path, guidance: float
) -> None:
    tokens, picture, noise = drawn(5, 17, 12), drawn(5, 8, 16, 16), draw_noise(5, 3)
    null = torch.zeros(17, 12)
    settings = SamplerSettings(steps=3, guidance=guidance, strength=0.3)
    wanted = sample(denoiser, tokens, null, noise, settings, start=picture)
    start = 0.7 * picture + 0.3 * noise
    options = {"n_steps": 3, "guidance": guidance, "null_condition": null, "batch_size": 2}
    scheduler = PartwayFlowScheduler(strength=0.3)
    store = quant.record(denoiser, scheduler, tokens, tmp_path / "a", start=start, **options)
    assert store.timesteps == pytest.approx([300, 200, 100])
    for key in range(5):
        torch.testing.assert_close(store.sample(key)["x"][0], start[key])
        torch.testing.assert_close(store.sample(key)["final"], wanted[key], atol=1e-5, rtol=1e-4)
    again = recorded_scheduler(store)
    again.set_timesteps(3)
    assert again.timesteps.tolist() == pytest.approx(list(store.timesteps))


def test_another_start_is_another_recording(denoiser: nn.Module, tmp_path: Path) -> None:
    tokens, start = drawn(3, 17, 12), drawn(3, 8, 16, 16)
    scheduler = PartwayFlowScheduler(strength=0.5)
    quant.record(denoiser, scheduler, tokens, tmp_path / "a", start=start, n_steps=1)
    with pytest.raises(quant.InputError, match="start = "):
        quant.record(denoiser, scheduler, tokens, tmp_path / "a", start=start + 1, n_steps=1)
    with pytest.raises(quant.InputError, match="start = "):
        quant.record(denoiser, scheduler, tokens, tmp_path / "a", n_steps=1)
    with pytest.raises(quant.InputError, match=r"start has shape \(2, 8, 16, 16\); 3 samples need"):
        quant.record(denoiser, scheduler, tokens, tmp_path / "b", start=start[:2], n_steps=1)
    assert not (tmp_path / "b").exists()
