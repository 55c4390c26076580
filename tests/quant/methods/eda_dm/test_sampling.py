"""TDAC: density, diversity, counts a timestep, and the points that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.methods.eda_dm import EdaDmConfig
from quant.methods.eda_dm.sampling import (
    calibration,
    counts,
    density,
    distances,
    diversity,
    draw,
    features,
    middle,
    scores,
)


def some(steps: int = 12, seed: int = 0) -> torch.Tensor:
    """Features (T, n, positions, C) that drift, with a crowd in the middle."""
    draw_ = torch.Generator().manual_seed(seed)
    base = torch.randn(2, 5, 8, generator=draw_)
    far = torch.linspace(-1, 1, steps).abs().reshape(-1, 1, 1, 1)
    return base + 3 * far * torch.randn(steps, 2, 5, 8, generator=draw_)


def test_density_and_diversity_by_hand() -> None:
    x = some()
    near, apart = torch.zeros(12), torch.zeros(12)
    for t in range(12):
        for s in range(12):
            if s != t:
                near[t] += float((x[t] - x[s]).square().mean() <= 4.0)
                apart[t] += (1 - torch.nn.functional.cosine_similarity(x[t], x[s], dim=-1)).sum()
    assert torch.equal(density(x, 4.0), near.double()) and 0 < near.sum() < 12 * 11
    torch.testing.assert_close(diversity(x), apart.double(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(distances(x)[2, 5], (x[2] - x[5]).double().square().mean())


@pytest.mark.parametrize("points", [1, 5, 64, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_whole_and_sum_to_the_points(points: int, seed: int) -> None:
    score = torch.rand(17, generator=torch.Generator().manual_seed(seed)).double()
    share = counts(score, points)
    assert sum(share) == points and min(share) >= 0 and len(share) == 17
    for n, s in zip(share, points * score / score.sum(), strict=True):
        assert abs(n - float(s)) <= 17  # remainders go where the most already is


def test_counts_by_hand() -> None:
    assert counts(torch.tensor([1.6, 5.2, 3.2]).double(), 10) == [2, 5, 3]  # round
    assert counts(torch.tensor([1.4, 5.4, 3.2]).double(), 10) == [1, 6, 3]  # what is left to the largest
    assert counts(torch.tensor([2.5, 2.5, 5.0, 3.5, 3.5, 3.0]).double(), 20) == [2, 2, 5, 4, 4, 3]
    assert counts(torch.tensor([0.6, 0.6, 0.6, 0.2]).double(), 2) == [1, 1, 0, 0]  # a surplus from the end


def test_surplus_never_makes_a_count_negative() -> None:
    assert counts(torch.tensor([1.0] * 7).double(), 4) == [1, 1, 1, 1, 0, 0, 0]  # 7 x round(4 / 7) = 7
    assert (
        counts(torch.tensor([5.0, 5.0, 0.0]).double(), 1) == [1, 0, 0] or sum(counts(torch.ones(3), 1)) == 1
    )


def test_without_diversity_density_decides_alone() -> None:
    x = some()
    alone = density(x, 4.0)
    expected = (alone - alone.min()) / (alone.max() - alone.min())
    torch.testing.assert_close(scores(x, 4.0, 0.0), expected)
    assert not torch.equal(scores(x, 4.0, 1.2), expected)


def test_permuting_steps_permutes_scores() -> None:
    x, order = some(), torch.randperm(12, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(scores(x[order], 4.0, 1.2), scores(x, 4.0, 1.2)[order])


@pytest.mark.parametrize("radius", [1e-12, 1e12])
def test_extreme_radius_falls_back_to_diversity_then_to_uniform(radius: float) -> None:
    x = some()
    found = scores(x, radius, 2.0)
    apart = diversity(x)
    torch.testing.assert_close(found, 2.0 * (apart - apart.min()) / (apart.max() - apart.min()))
    assert torch.equal(scores(x, radius, 0.0), torch.ones(12).double())
    still = x[:1].expand(12, -1, -1, -1)  # nothing changes over time: 0 / 0 in the released code
    assert torch.equal(scores(still, radius, 1.2), torch.ones(12).double())
    assert counts(scores(still, radius, 1.2), 24) == [2] * 12


def test_each_trajectory_gives_one_point_before_any_gives_two() -> None:
    steps = [0] * 3 + [1] * 5 + [2] * 2
    pairs = draw(list(range(100, 110)), steps, seed=1)
    assert sorted(k for k, _ in pairs) == list(range(100, 110)) and sorted(s for _, s in pairs) == steps
    assert pairs == draw(list(range(100, 110)), steps, seed=1) != draw(list(range(100, 110)), steps, seed=2)
    assert [s for _, s in pairs] != steps  # a trajectory's place says nothing about its timestep
    again = [k for k, _ in draw([7, 8, 9], steps, seed=1)]
    assert all(sorted(again[i : i + 3]) == [7, 8, 9] for i in (0, 3, 6))


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    conditions = torch.randn(10, 5, 24, generator=torch.Generator().manual_seed(0))
    return quant.record(
        tiny.build("unet"),
        FlowMatchEulerDiscreteScheduler(),
        conditions,
        tmp_path_factory.mktemp("s"),
        n_steps=4,
    )


@pytest.mark.parametrize("kind", ["density", "random"])
def test_points_are_rows_of_their_trajectories_bit_for_bit(kind: str, tiny, store) -> None:
    config = EdaDmConfig(points=9, calibration=kind, feature_samples=3)
    model = tiny.build("unet")
    batch, notes = calibration(model, store, config, seed=4)
    assert len(batch.key) == 9 and sum(notes["points_by_step"]) == 9
    assert set(batch.key.tolist()) <= set(store.keys("calibrate"))
    seen = [0] * 4
    for row in range(9):
        sample = store.sample(int(batch.key[row]))
        step = store.timesteps.index(pytest.approx(float(batch.timestep[row])))
        assert torch.equal(batch.x[row], sample["x"][step])
        assert torch.equal(batch.condition[row], sample["condition"])
        seen[step] += 1
    assert seen == notes["points_by_step"]
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_features_are_the_mid_blocks_inputs(tiny, store) -> None:
    model = tiny.build("unet")
    found = features(model, store, 3)
    assert found.shape == (4, 3, 16, 64) and middle(model) is model.mid_block.attentions[0]
    assert middle(tiny.build("pixart")) is not None and not torch.equal(found[0], found[1])
    rows = [store.sample(key) for key in store.keys("calibrate")[:3]]
    seen: list[torch.Tensor] = []
    handle = model.mid_block.attentions[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        model(
            torch.stack([r["x"][2] for r in rows]), store.timesteps[2],
            encoder_hidden_states=torch.stack([r["condition"] for r in rows]),
        )  # fmt: skip
    handle.remove()
    torch.testing.assert_close(found[2], seen[0].flatten(2).mT, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("radius", "quantile", "weight"), [(None, 0.3, 1.2), (None, 0.9, 1.2), (None, 0.3, 9.0), (1.0, 0.3, 1.2)]
)
def test_points_follow_the_settings(radius, quantile, weight, tiny, store, monkeypatch) -> None:
    """By the definitions, on features whose distances are known: 0, 1, 9 and 16 apart on a line."""
    known = torch.tensor([1.0, 2.0, 5.0, 6.0]).reshape(4, 1, 1, 1) * torch.tensor([1.0, 0, 0, 0])
    known[1] = known[1].roll(1, -1)
    monkeypatch.setattr("quant.methods.eda_dm.sampling.features", lambda *args: known)
    config = EdaDmConfig(points=1000, radius=radius, radius_quantile=quantile, diversity=weight)
    _, notes = calibration(tiny.build("unet"), store, config, seed=0)
    flat = known.flatten(1).double()
    apart = [[float((a - b).square().mean()) for b in flat] for a in flat]
    limit = radius or np.quantile([apart[t][s] for t in range(4) for s in range(4) if s != t], quantile)
    near = [sum(apart[t][s] <= limit for s in range(4) if s != t) for t in range(4)]
    angle = [sum(1 - float(a @ b / a.norm() / b.norm()) for b in flat) for a in flat]
    parts = [(np.array(v) - min(v)) / max(1e-12, max(v) - min(v)) for v in (near, angle)]
    share = parts[0] + weight * parts[1]
    np.testing.assert_allclose(notes["points_by_step"], 1000 * share / share.sum(), atol=2)
