from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_unflatten

import quant
from lab import zoo
from lab.errors import InputError
from lab.zoo.recordings import order, stimulus_tokens, zoo_recording
from lab.zoo.sampling import SamplerSettings, draw_noise, sample
from quant.layers.install import state_of
from quant.layers.native import replays
from quant.layers.native.replays import REPLAYED, launched


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


def test_a_native_denoiser_is_replayed_over_steps_batches_and_drawings(
    denoiser: nn.Module, parts: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where computing again stands for a graph."""
    made: list[int] = []

    def capture(forward: Any, flat: list[Any], spec: Any) -> Any:
        made.append(len(flat))

        def again(given: list[Any]) -> Any:
            args, kwargs = tree_unflatten(given, spec)
            return forward(*args, **kwargs)

        return again

    model = copy.deepcopy(denoiser)
    ledger = quant.quantize_(model, "rtn-w8a8", keep_originals=False)
    wanted = draw(model, parts, steps=5, batch=2)
    kept = replays._KEPT[model] = replays.Replays(capture)
    monkeypatch.setattr(replays, "_native", lambda layer: True)
    assert torch.equal(draw(model, parts, steps=5, batch=2), wanted)  # batches of 2, 2 and 1
    assert (len(made), kept.launched, kept.replayed) == (2, 6, 9) and ledger.launches == REPLAYED
    assert torch.equal(draw(model, parts, steps=5, batch=2), wanted)
    assert (len(made), kept.launched, kept.replayed) == (2, 6, 24)
    monkeypatch.undo()
    assert torch.equal(draw(model, parts, steps=5, batch=2), wanted) and kept.replayed == 24


SHORT = "+samples=4+steps=2+rows=32"
NATIVE = [
    "rtn-w8a8",
    f"svdquant-w4a4-native{SHORT}+smooth_points=2+iterations=1",
    f"svdquant-w4a4-int-scale+input_search=0{SHORT}+smooth_points=2+iterations=1",
    f"fp4-fp8-e4m3-nearest{SHORT}+clips=3",
    "int8-int8-tensor+samples=2+steps=1+rows=16",
    "mixdq-w4a8-common+points=8",
    "eda-dm-w4a8-common+points=2+iterations=1+batch_size=2+feature_samples=2",
    "lrq-dit-w4a4-common+samples=1+greedy_steps=2",
]
"""One preset of every kind of kernel."""


@pytest.mark.gpu
@pytest.mark.parametrize("name", zoo.DECODERS)
@pytest.mark.parametrize("recipe", NATIVE)
def test_graphs_draw_the_bytes_of_plain_launches(name: str, recipe: str) -> None:
    """At every timestep, with and without guidance, from a picture, and in a last smaller batch."""
    denoiser, n = zoo.load(name, "cuda"), 19
    store = zoo_recording(name, n=8, steps=6, guidance=3.0, device="cuda")
    quant.quantize_(denoiser, recipe, trajectories=store, keep_originals=False)
    quant.native_(denoiser)
    tokens, null = stimulus_tokens(order(start=64)[:n], "cuda"), zoo.null_tokens(name)
    noise, start = draw_noise(n, 3), draw_noise(n, 4)

    def drawn(guidance: float, strength: float = 1.0) -> torch.Tensor:
        settings = SamplerSettings(6, guidance, strength, batch=8)
        return sample(denoiser, tokens, null, noise, settings, start=start)

    ways = [(3.0, 1.0), (1.0, 1.0), (3.0, 0.55), (3.0, 1.0)]  # the last one from graphs only
    with launched(denoiser):
        wanted = [drawn(*way) for way in ways]
    assert "because it was asked for" in state_of(denoiser).ledger.arithmetic
    for way, plain in zip(ways, wanted, strict=True):
        assert torch.equal(drawn(*way), plain), way
    assert state_of(denoiser).ledger.launches == REPLAYED
