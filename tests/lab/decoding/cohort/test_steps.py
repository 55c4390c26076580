"""Which step of a study comes next, and what guidance is chosen on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from lab.decoding.cohort.choice import MOST, USUAL, LeftOut, clearly_best, kept_out
from lab.decoding.cohort.steps import Step, ready
from lab.decoding.cohort.subjects import _crops

STEPS = [
    Step("short", (("g", "a", "s1"),), lambda: None, long=1),
    Step("base", (("g", "b", "s1"), ("g", "b", "s2")), lambda: None, long=5),
    Step("upon it", (("g", "c", "s1"),), lambda: None, needs="base", long=9),
]


def test_the_longest_step_that_can_begin_comes_first() -> None:
    assert ready(STEPS, set(), set()) is STEPS[1]
    assert ready(STEPS, set(), {"base"}) is STEPS[0]  # what needs it waits for its end
    assert ready(STEPS, {"base"}, set()) is STEPS[2]
    assert ready(STEPS, {"base", "short"}, {"upon it"}) is None


def test_a_step_is_done_when_all_of_its_scores_are_there() -> None:
    assert not STEPS[1].done([("g", "b", "s1")])
    assert STEPS[1].done([("g", "b", "s1"), ("g", "b", "s2"), ("g", "a", "s1")])


def member(shown: list[int]) -> SimpleNamespace:
    return SimpleNamespace(member=SimpleNamespace(index=torch.tensor(shown)))


def test_left_out_trials_are_those_of_the_held_pictures_in_their_order() -> None:
    rows = kept_out(member([7, 1, 9, 0, 2]), held=3)  # type: ignore[arg-type]
    assert rows.tolist() == [3, 1, 4]
    assert kept_out(member(list(range(MOST + 5))), held=0).tolist() == list(range(MOST))  # type: ignore[arg-type]


def test_subjects_who_saw_the_same_pictures_show_different_ones() -> None:
    some = [LeftOut(torch.full((10, 2), float(k)), torch.arange(10)) for k in range(2)]
    joined = LeftOut.join(some, most=10)
    assert joined.shown.tolist() == list(range(10))
    assert joined.tokens[:, 0].tolist() == [0.0] * 5 + [1.0] * 5
    few = LeftOut.join([LeftOut(torch.zeros(3, 2), torch.arange(3))], most=10)
    assert len(few.shown) == len(few.tokens) == 3


def test_guidance_stays_as_usual_unless_another_is_clearly_better() -> None:
    rng = np.random.default_rng(0)
    usual, noise = rng.random(40), rng.normal(0, 0.3, 40)
    noise -= noise.mean()
    found = {2.0: usual + noise + 0.02, USUAL: usual, 4.0: usual - 0.1}
    assert clearly_best(found) == USUAL  # .02 within a standard error of .05
    assert clearly_best(found | {2.0: usual + noise + 0.2}) == 2.0
    assert clearly_best(found | {2.0: usual + noise + 0.2, 4.0: usual + 0.3}) == 4.0
    assert clearly_best({2.0: usual[:1] + 1, USUAL: usual[:1]}) == USUAL  # one picture says nothing


def test_crops_are_enlarged_parts_and_the_same_each_time() -> None:
    flat = torch.full((2, 3, 16, 16), 90, dtype=torch.uint8)
    assert (_crops(flat, 5, "cpu") == 90).all()
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    made = _crops(pictures, 7, "cpu", batch=2)
    assert made.shape == (7, 3, 16, 16) and torch.equal(made, _crops(pictures, 7, "cpu"))
    assert not any(torch.equal(made[k], pictures[k % 3]) for k in range(7))
    assert _crops(pictures, 0, "cpu").shape == (0, 3, 16, 16)
