"""What is trained on, what is held out, what is compared: points, guided predictions, sums along paths."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quant.training.source import PATH, Source, _spread
from quant.training.student import Student, unshrunk


def test_a_path_is_of_one_sample_in_even_strides(recorded) -> None:
    source = Source(recorded("pixart"), 2 * PATH)
    generator = torch.Generator().manual_seed(0)
    batch, length = source.draw_paths(generator)
    assert length == min(PATH, source.n_timesteps) and len(batch.timestep) % length == 0
    for path in batch.timestep.unflatten(0, (-1, length)):
        places = [source.recording.timesteps.index(float(t)) for t in path]
        assert len({b - a for a, b in pairwise(places)}) == 1


def test_a_path_spans_a_long_trajectory(source: Source, monkeypatch) -> None:
    store = SimpleNamespace(timesteps=tuple(range(20)), read=lambda pairs: pairs)
    monkeypatch.setattr(source, "recording", store)
    source.rows, first = 16, set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        pairs: Any = source.draw_paths(generator)[0]
        for path in (pairs[:8], pairs[8:]):
            assert [step - path[0][1] for _, step in path] == [0, 2, 4, 6, 8, 10, 12, 14]
            assert len({key for key, _ in path}) == 1
            first.add(path[0][1])
    assert first == set(range(6))


def test_a_smaller_scale_does_not_pay() -> None:
    generator = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 4, 50, 50, generator=generator)
    losses = {scale: float(unshrunk(scale * (target + noise), target).mean()) for scale in (0.5, 0.8, 1.0)}
    assert min(losses, key=lambda scale: losses[scale]) == 1.0
    assert float((0.5 * (target + noise) - target).square().mean()) < losses[0.5]  # plain error prefers it
    assert not unshrunk(target, target).any()


@pytest.mark.parametrize(("samples", "steps"), [(3, 20), (7, 20), (21, 20), (17, 50), (4, 20), (1, 5)])
def test_fixed_points_are_as_many_as_asked_and_differ(samples: int, steps: int) -> None:
    for count in (1, steps // 2, steps, 64, samples * steps, 2 * samples * steps):
        found = _spread(range(samples), steps, count)
        assert len(found) == len(set(found)) == min(count, samples * steps)
        times = [[step for _, step in found].count(t) for t in range(steps)]
        assert max(times) - min(times) <= 1


@pytest.fixture
def source(recorded, monkeypatch) -> Source:
    """Six samples of three steps to train on."""
    monkeypatch.setattr("quant.training.source.calibration_keys", lambda store, subset: list(range(6)))
    return Source(recorded("pixart"), 4)


def test_samples_to_train_on_are_the_recordings_own_subset(recorded) -> None:
    store = recorded("pixart")
    source = Source(store, 4)
    assert sorted(source.train + source.held) == store.keys("distill")
    assert not {*source.train, *source.held} & {*store.keys("calibrate"), *store.keys("evaluate")}
    assert Source(store, 4, hold=False).train == store.keys("distill")


def test_what_is_held_out_is_never_drawn(source: Source) -> None:
    assert (source.train, source.held) == ([0, 1, 2, 3, 4], [5])
    generator, drawn = torch.Generator().manual_seed(0), set()
    for _ in range(60):
        batch = source.draw(generator)
        drawn |= set(zip(batch.key.tolist(), batch.timestep.tolist(), strict=True))
        assert set(source.draw_paths(generator)[0].key.tolist()) <= set(source.train)
    assert drawn == {(key, time) for key in source.train for time in source.recording.timesteps}
    for held, keys in ((False, source.train), (True, source.held)):
        points = source.spread(99, held)
        assert {int(key) for batch in points for key in batch.key} == set(keys)


def test_the_guided_prediction_is_compared(source: Source, monkeypatch) -> None:
    """eps_u + w (eps_c - eps_u), EfficientDM's equation 7 with guidance."""

    def call(model: Any, x: torch.Tensor, time: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        assert len(x) == len(time) == len(condition)
        return x * condition[:, 0, 0].view(-1, 1, 1, 1)

    monkeypatch.setattr("quant.training.source.call", call)
    batch = source.draw(torch.Generator().manual_seed(0))
    batch = replace(batch, condition=torch.ones_like(batch.condition))
    source.null, source.guidance = torch.full((7, 24), 0.25), 3.0
    given, base = batch.x * 1.0, batch.x * 0.25
    torch.testing.assert_close(source.predict(None, batch), base + 3 * (given - base))
    source.combined = False
    torch.testing.assert_close(source.predict(None, batch), torch.cat([given, base]))


def test_the_judge_sees_held_out_samples_alone(source: Source) -> None:
    seen: list[int] = []

    def predict(batch: Any) -> torch.Tensor:
        seen.extend(batch.key.tolist())
        return 1.1 * batch.x

    student: Any = SimpleNamespace(
        source=source, config=SimpleNamespace(held_out_rows=3), target=lambda batch: batch.x, predict=predict
    )
    assert Student.held_out(student) == pytest.approx(0.01, rel=1e-4)
    assert set(seen) == set(source.held) and len(seen) == 3


def test_errors_along_a_path_are_summed_before_they_are_squared() -> None:
    config = SimpleNamespace(path=0.25, unshrunk=False)
    student: Any = SimpleNamespace(config=config, length=3)
    error = torch.randn(6, 2, 2, generator=torch.Generator().manual_seed(0))
    goal = torch.randn(6, 2, 2, generator=torch.Generator().manual_seed(1))
    alone = error.square().mean()
    along = sum(path.sum(0).square().mean() / 3 for path in (error[:3], error[3:])) / 2
    torch.testing.assert_close(Student.distance(student, goal + error, goal), 0.75 * alone + 0.25 * along)
    config.path = 0
    torch.testing.assert_close(Student.distance(student, goal + error, goal), alone)
    config.unshrunk = True  # a scale that is wrong costs what it takes from the target
    torch.testing.assert_close(
        Student.distance(student, 0.9 * goal, goal), 0.01 * goal.square().mean(), rtol=1e-4, atol=0
    )
