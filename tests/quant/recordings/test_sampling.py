"""The one sampler against loops written out by hand, and what each of its callers relies on."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import nn

import quant
from quant.recordings.sampling import Step, guided, sample, set_times, start_noise

CONDITIONS = torch.randn(5, 5, 24, generator=torch.Generator().manual_seed(0))
NULL = torch.zeros(5, 24)


class Straight(nn.Module):
    """The exact velocity of a flow to known pictures: any number of Euler steps must arrive."""

    def __init__(self, goal: torch.Tensor) -> None:
        super().__init__()
        self.goal = nn.Parameter(goal)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, **_: object) -> torch.Tensor:
        return (x - self.goal[: len(x)]) / (timestep / 1000).view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def model(tiny) -> nn.Module:
    return tiny.build("unet")


@pytest.fixture(scope="module")
def noise(model) -> torch.Tensor:
    size = model.config.sample_size
    return torch.stack([start_noise(3, key, (model.config.in_channels, size, size)) for key in range(5)])


@torch.no_grad()
def by_hand(model: nn.Module, scheduler, x: torch.Tensor, guidance: float, steps: int) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    x = x * float(scheduler.init_noise_sigma) if hasattr(scheduler, "init_noise_sigma") else x
    options = {"generator": [torch.Generator().manual_seed(row) for row in range(len(x))]}
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        free = model(seen, t, encoder_hidden_states=NULL.expand_as(CONDITIONS)).sample
        held = model(seen, t, encoder_hidden_states=CONDITIONS).sample
        x = scheduler.step(free + guidance * (held - free), t, x, **options).prev_sample
    return x


@pytest.mark.parametrize(
    "scheduler", [FlowMatchEulerDiscreteScheduler, DDIMScheduler, EulerAncestralDiscreteScheduler]
)
def test_equals_the_loop_by_hand(model: nn.Module, noise: torch.Tensor, scheduler) -> None:
    expected = by_hand(model, scheduler(), noise, 2.0, 3)
    options = {"steps": 3, "guidance": 2.0, "generator": lambda row: torch.Generator().manual_seed(row)}
    apart = sample(model, scheduler(), noise, CONDITIONS, NULL, apart=True, **options)
    assert torch.equal(apart, expected)
    torch.testing.assert_close(
        sample(model, scheduler(), noise, CONDITIONS, NULL, **options), expected, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(  # a sample depends on neither its batch mates nor their number
        sample(model, scheduler(), noise, CONDITIONS, NULL, batch=2, **options),
        expected,
        rtol=1e-4,
        atol=1e-4,
    )


def test_guidance_one_asks_once_and_equals_the_general_form(model: nn.Module, noise: torch.Tensor) -> None:
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    t = torch.tensor(400.0)
    with torch.no_grad():
        once, general, strong = (guided(model, noise, t, CONDITIONS, NULL, g) for g in (1, 1 + 1e-6, 3.0))
        apart = guided(model, noise, t, CONDITIONS, NULL, 3.0, apart=True)
        free = guided(model, noise, t, NULL.expand_as(CONDITIONS), None, 3.0)
    handle.remove()
    assert calls == [5, 10, 10, 5, 5, 5]
    torch.testing.assert_close(once, general, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(strong, free + 3 * (once - free), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(strong, apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("steps", "strength"), [(1, 1.0), (7, 1.0), (4, 0.6)])
def test_a_straight_flow_arrives_from_anywhere(steps: int, strength: float) -> None:
    goal = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    seen: list[Step] = []
    made = sample(
        Straight(goal), FlowMatchEulerDiscreteScheduler(), torch.randn(4, 2, 8, 8), steps=steps,
        strength=strength, start=goal, see=seen.append,
    )  # fmt: skip
    if strength < 1 or steps == 1:
        torch.testing.assert_close(made, goal, atol=1e-4, rtol=1e-4)
    assert [step.index for step in seen] == list(range(steps))
    assert seen[0].timestep == pytest.approx(1000 * strength)
    assert all(step.x.shape == step.output.shape == goal.shape for step in seen)


def test_progress_and_rows_of_batches(model: nn.Module, noise: torch.Tensor) -> None:
    seen: list[tuple[int, int, int]] = []
    done: list[tuple[int, int]] = []
    sample(
        model, FlowMatchEulerDiscreteScheduler(), noise, CONDITIONS, NULL, steps=2, batch=3,
        see=lambda step: seen.append((step.index, step.rows.start, step.rows.stop)),
        progress=lambda i, n, what: done.append((i, n)),
    )  # fmt: skip
    assert seen == [(0, 0, 3), (1, 0, 3), (0, 3, 5), (1, 3, 5)]
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_part_of_the_way_needs_noise_levels() -> None:
    with pytest.raises(quant.InputError, match=r"strength is 0\.5, and DDIMScheduler starts from pure noise"):
        set_times(DDIMScheduler(), 4, 0.5)
