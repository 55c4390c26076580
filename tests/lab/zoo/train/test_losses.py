"""What denoisers are trained by, with models that know the answer: their loss is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lab.progress import silent
from lab.zoo.people import Seen
from lab.zoo.train import autoencoder, denoiser, predicted
from lab.zoo.video import train as video


class Knows(nn.Module):
    """A denoiser whose condition begins with the clean latent, at times of 0..1000."""

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any):
        x0 = encoder_hidden_states.flatten(1)[:, : x[0].numel()].view_as(x)
        return ((x - x0) / (timestep / 1000).view(-1, *[1] * (x.ndim - 1)),)


def captured(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, Any]:
    """Return what a module's training hands to the loop, when it is called."""
    found: dict[str, Any] = {}

    def fit(model: nn.Module, loss: Any, n: int, *given: Any, prepare: Any = None, **options: Any) -> None:
        found.update(model=model, loss=loss, n=n, prepare=prepare)

    monkeypatch.setattr(module, "fit", fit)
    return found


def known(n: int, tokens: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents, and conditions that begin with them."""
    torch.manual_seed(0)
    c = torch.randn(n, tokens, 192)
    x0 = c.flatten(1)[:, : torch.Size(shape).numel()].reshape(n, *shape)
    return x0, c


@pytest.mark.parametrize("dropped", [False, True])
def test_the_flow_of_pictures(dropped: bool) -> None:
    x0, c = known(6, 17, 8, 16, 16)
    model = denoiser.Conditioned(Knows(), c[0])
    _, s, noise = denoiser.flow_draws(x0)
    drop = torch.full((6, 1, 1), dropped)
    # without its condition a case is that of the null, which is the first one's here
    goal = x0[:1].expand_as(x0) if dropped else x0
    assert denoiser.flow_loss(model, goal, c, (drop, s, noise)) < 1e-6
    assert denoiser.flow_loss(model, goal.flip(0) + 1, c, (drop, s, noise)) > 1


def test_what_a_step_draws() -> None:
    torch.manual_seed(0)
    drop, s, noise = denoiser.flow_draws(torch.zeros(4000, 2))
    assert 0.08 < drop.float().mean() < 0.12 and drop.shape == (4000, 1, 1)
    low, middle, high = s.quantile(torch.tensor([0.16, 0.5, 0.84]))  # a sigmoid of one standard deviation
    assert (low - 0.269).abs() < 0.02 and (middle - 0.5).abs() < 0.02 and (high - 0.731).abs() < 0.02
    assert abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize("dropped", [0.0, 1.0])
def test_the_flow_of_clips(monkeypatch: pytest.MonkeyPatch, dropped: float) -> None:
    found = captured(monkeypatch, video)
    monkeypatch.setattr(video, "DROP_CONDITION", dropped)
    x0, c = known(4, 82, 8, 2, 16, 16)
    if dropped:
        x0 = torch.full_like(x0, 0.5)
    start = (Knows(), torch.full((19, 192), 0.5))
    video.train(x0, c, Path("none"), video.RECIPE, 0, None, silent, start)
    assert found["n"] == 4 and found["loss"](found["model"], torch.arange(4), torch.tensor(0)) < 1e-6


def test_tokens_lie_between_prediction_and_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the truth in 15 % of the cases, some of it in 20 %, none in the others."""
    found = captured(monkeypatch, predicted)
    asked: list[int] = []

    class Reader:
        def predict(self, index: torch.Tensor, repeats: int) -> torch.Tensor:
            asked.append(repeats)
            return torch.zeros(len(index), 17 * 192)

    monkeypatch.setattr(predicted, "read", lambda people, *given: [[Reader()] for _ in people])
    images = torch.zeros(2, 3, 1, 1, dtype=torch.uint8)
    latents = torch.arange(2.0)[:, None, None, None].half()
    seen = Seen(images, latents, torch.ones(2, 17 * 192), 2)
    start = (Knows(), torch.zeros(17, 192))
    recipe = predicted.RECIPES["dit-64"]
    predicted.train("dit-64", seen, 40, Path("none"), recipe, 0, None, silent, start)
    torch.manual_seed(0)
    index = torch.arange(2).repeat(300)
    x0, tokens = found["prepare"](index)
    share = tokens[:, 0, 0]
    assert torch.equal(x0[:, 0, 0, 0], index.float()) and tokens.shape == (600, 17, 192)
    assert 0.12 < (share == 1).float().mean() < 0.18 and 0.61 < (share == 0).float().mean() < 0.69
    assert 0.4 < share[(share > 0) & (share < 1)].mean() < 0.6
    for _ in range(20):
        found["prepare"](index[:2])
    assert set(asked) == {1, 2, 3}


def test_the_autoencoder_s_loss_and_its_latents_spread() -> None:
    """A latent of mean m and log variance l costs (m^2 + e^l - 1 - l) / 2 in nats, times its weight."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        found = captured(patch, autoencoder)

        class Fixed(autoencoder.LatentAutoencoder):
            def moments(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                mean = torch.full((len(images), 8, 16, 16), 2.0)
                return mean + torch.arange(len(images)).view(-1, 1, 1, 1), torch.full_like(mean, -1.0)

            def reconstruct(self, raw: torch.Tensor) -> torch.Tensor:
                return torch.full((len(raw), 3, 64, 64), 0.25)

        images = torch.full((2, 3, 64, 64), 51, dtype=torch.uint8)  # .2
        pictures = autoencoder.Pictures(images, torch.zeros(2))
        given = (Path("none"), autoencoder.RECIPE, 0, None, silent, Fixed(width=8))
        model, _ = autoencoder.train(pictures, *given)
    loss = found["loss"](model, torch.tensor([0, 0]), torch.tensor(0))
    divergence = ((4 + 9) / 2 + math.exp(-1) - 1 + 1) / 2
    assert float(loss) == pytest.approx(
        float(torch.log(torch.tensor((2 * 0.05) ** 2 + 1e-3))) + 1e-3 * divergence, rel=1e-4
    )
    assert float(model.shift.mean()) == 2.5 and float(model.scale.mean()) == pytest.approx(0.5, rel=1e-2)
