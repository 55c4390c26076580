from __future__ import annotations

import pytest
import torch
from torch import nn

from lab.errors import InputError
from lab.zoo.sampling import SamplerSettings, draw_noise, sample


@pytest.fixture(scope="module")
def parts() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "tokens": torch.randn(5, 17, 12, generator=g),
        "null": torch.randn(17, 12, generator=g),
        "start": torch.randn(5, 8, 16, 16, generator=g),
        "noise": draw_noise(5, seed=3),
    }


def draw(
    denoiser: nn.Module, parts: dict[str, torch.Tensor], with_start: bool = False, **settings
) -> torch.Tensor:
    chosen = SamplerSettings(**{"steps": 3, **settings})
    start = parts["start"] if with_start else None
    return sample(denoiser, parts["tokens"], parts["null"], parts["noise"], chosen, start=start)


def test_noise_is_fixed_by_its_seed() -> None:
    assert torch.equal(draw_noise(4, 7), draw_noise(4, 7))
    assert not torch.equal(draw_noise(4, 7), draw_noise(4, 8))
    assert draw_noise(4, 7).dtype == torch.float32


def test_same_call_gives_same_pictures(denoiser: nn.Module, parts: dict[str, torch.Tensor]) -> None:
    one = draw(denoiser, parts)
    assert one.shape == (5, 8, 16, 16) and torch.isfinite(one).all()
    assert torch.equal(one, draw(denoiser, parts))


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_batch_size_does_not_matter(denoiser: nn.Module, parts: dict[str, torch.Tensor], batch: int) -> None:
    torch.testing.assert_close(
        draw(denoiser, parts, batch=batch), draw(denoiser, parts, batch=5), atol=1e-5, rtol=1e-4
    )


def test_no_strength_gives_the_start_back(denoiser: nn.Module, parts: dict[str, torch.Tensor]) -> None:
    assert torch.equal(draw(denoiser, parts, True, strength=0.0), parts["start"])
    near = draw(denoiser, parts, True, strength=1e-3)
    assert (near - parts["start"]).abs().max() < 0.02
    assert (draw(denoiser, parts, True, strength=0.5) - parts["start"]).abs().max() > 0.1


def test_full_strength_forgets_the_start(denoiser: nn.Module, parts: dict[str, torch.Tensor]) -> None:
    assert torch.equal(draw(denoiser, parts, True, strength=1.0), draw(denoiser, parts))


class Straight(nn.Module):
    """The exact velocity of a flow to known pictures: any number of Euler steps must arrive."""

    def __init__(self, goal: torch.Tensor) -> None:
        super().__init__()
        self.goal = nn.Parameter(goal)
        self.asked: list[float] = []

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, **_: object) -> torch.Tensor:
        s = (timestep / 1000).view(-1, 1, 1, 1)
        self.asked.append(float(s[0]))
        return (x - self.goal) / s


@pytest.mark.parametrize(("steps", "strength"), [(1, 1.0), (7, 1.0), (4, 0.6)])
def test_a_straight_flow_arrives(parts: dict[str, torch.Tensor], steps: int, strength: float) -> None:
    flow = Straight(parts["start"])
    made = draw(flow, parts, True, steps=steps, strength=strength, guidance=1.0)
    torch.testing.assert_close(made, parts["start"], atol=1e-4, rtol=1e-4)
    assert len(flow.asked) == steps and flow.asked[0] == pytest.approx(strength)
    assert flow.asked == sorted(flow.asked, reverse=True) and flow.asked[-1] == pytest.approx(
        strength / steps
    )


def test_progress_and_watching(denoiser: nn.Module, parts: dict[str, torch.Tensor]) -> None:
    seen, steps = [], []
    sample(
        denoiser,
        parts["tokens"],
        parts["null"],
        parts["noise"],
        SamplerSettings(steps=2, batch=3),
        progress=lambda done, total, what: seen.append((done, total)),
        see=lambda step: steps.append(step.timestep),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps == pytest.approx([1000, 500, 1000, 500])


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"batch": 0}, {"strength": 1.5}, {"strength": -0.1}, {"guidance": -1.0}]
)
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        SamplerSettings(**bad)


def test_bad_input_is_refused(denoiser: nn.Module, parts: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match="needs a picture to start from"):
        draw(denoiser, parts, strength=0.5)
    with pytest.raises(InputError, match=r"for \[4, 5\] pictures"):
        draw(denoiser, {**parts, "tokens": parts["tokens"][:4]})
