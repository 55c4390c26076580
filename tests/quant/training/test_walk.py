"""Training along the way: steps are read exactly, samples move on, a stopped training goes on."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

import quant
from quant import recipes
from quant.training.source import Source
from quant.training.walk import Walk, read_ladder


@pytest.fixture
def walk(tiny, recorded) -> Walk:
    """Teacher and student are one model here."""
    source = Source(recorded("pixart"), 4)
    return Walk(source, tiny.build("pixart"), nullcontext, nullcontext, 2, 3, "cpu")


def test_steps_of_the_sampler_lead_from_state_to_state(walk: Walk) -> None:
    samples = [walk.source.recording.sample(key) for key in walk.source.held]
    with torch.no_grad():
        way = walk.go(walk._rows(samples, [0] * len(samples)), walk.source.n_timesteps)
    for step, found in enumerate(way):
        wanted = torch.stack([s["x"][step + 1] if step + 1 < len(way) else s["final"] for s in samples])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
    with torch.no_grad():
        assert walk.held_out() < 1e-5 and walk.loss(walk.draw(0, torch.Generator().manual_seed(0))) < 1e-8


def test_samples_move_by_the_students_step_and_begin_anew_at_the_end(walk: Walk) -> None:
    generator = torch.Generator().manual_seed(3)
    noises = [walk.source.recording.sample(key)["x"][0] for key in walk.source.train]
    before = walk.draw(0, generator)
    for step in range(1, 9):
        with torch.no_grad():
            wanted = walk.go(before, 1)[0]
            walk.loss(before)
        now = walk.draw(step, generator)
        if step % walk.every:
            for row, behind in enumerate(now.index.tolist()):
                if behind:
                    assert behind == before.index[row] + 1 and torch.equal(now.x[row], wanted[row])
                else:
                    assert any(torch.equal(now.x[row], noise) for noise in noises)
        assert now.index.max() + walk.steps <= walk.source.n_timesteps
        before = now


def test_a_training_that_goes_on_finds_the_same_samples(walk: Walk) -> None:
    generator = torch.Generator().manual_seed(3)
    for step in range(6):
        walk.draw(step, generator)
        if step == 2:
            state = generator.get_state()
    wanted = walk.rows
    walk.rows, generator = None, torch.Generator()
    generator.set_state(state)
    for step in range(3, 6):
        walk.draw(step, generator)
    assert torch.equal(walk.rows.x, wanted.x) and torch.equal(walk.rows.index, wanted.index)


def test_a_sampler_that_draws_noise_is_refused(tiny, recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(recorded("pixart"), 4)
    real = source.recording.sample

    def noisy(key: int) -> dict[str, torch.Tensor]:
        found = dict(real(key))
        return {**found, "x": found["x"] + torch.randn(found["x"].shape)}

    monkeypatch.setattr(source.recording, "sample", noisy)
    with pytest.raises(quant.InputError, match="is not a fixed sum of state and prediction") as caught:
        read_ladder(source, tiny.build("pixart"), "cpu")
    assert "use unroll=0" in str(caught.value) and "\n" not in str(caught.value)


def test_more_steps_than_the_sampler_has_are_refused(tiny, recorded) -> None:
    with pytest.raises(quant.InputError, match="unroll 99: the recording has"):
        Walk(Source(recorded("pixart"), 4), tiny.build("pixart"), nullcontext, nullcontext, 99, 3, "cpu")


@pytest.mark.parametrize(
    ("recipe", "stage"),
    [("efficientdm-w4a4+rank=4", "factors"), ("binarydm-w1a4+mimicking=0", "binary"),
     ("qvgen-w4a4+policy=common+helper=none", "qat")],
)  # fmt: skip
def test_methods_train_along_the_way_and_are_judged_by_where_it_ends(
    recipe: str, stage: str, tiny, recorded
) -> None:
    store = recorded("pixart")
    budget = "train_steps=3+train_rows=2+calibration_rows=4+held_out_rows=4+look_every=3"
    ledger = quant.quantize_(tiny.build("pixart"), f"{recipe}+{budget}+unroll=2", trajectories=store)
    alone = quant.quantize_(tiny.build("pixart"), f"{recipe}+{budget}", trajectories=store)
    assert ledger.notes[stage]["steps"] == 3
    assert ledger.notes[stage]["held_out_first"] != alone.notes[stage]["held_out_first"]
    costs = [
        quant.plan(tiny.build("pixart"), f"{recipe}+{budget}{more}").training for more in ("+unroll=2", "")
    ]
    assert [cost.rows for cost in costs if cost] == [4, 2]


def test_settings_of_the_way_that_do_not_go_together_are_refused() -> None:
    for words, said in (
        ("binarydm-w1a4+unroll=2", "mimicking is 0"),
        ("efficientdm-w4a4+unroll=2+guidance=separate", "guidance is 'combined'"),
        ("qvgen-w4a4+unroll=2+path=0.5", "path judges single predictions"),
        ("qvgen-w4a4+unroll=2+unshrunk=true", "unshrunk judges single predictions"),
    ):  # fmt: skip
        with pytest.raises(quant.InputError, match=said):
            recipes.resolve(words)
