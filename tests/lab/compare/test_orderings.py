"""Statistics and verdicts on parts whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

import quant
from lab.compare import orderings
from lab.compare.measuring import Part
from lab.compare.orderings import Ordering, judge, load_orderings, verdict
from lab.compare.recipes import expand, parse_known
from lab.compare.statistics import Resampler, Scores

N = 200


def part(recipe: str, seed: int, psnr: np.ndarray, size: int = 100) -> Part:
    return Part(recipe, seed, {"psnr_db": psnr}, {}, {"bytes": size})


def scores(**shifts: float) -> Scores:
    """Recipes that differ from a common picture difficulty by a shift and small noise of their own."""
    made = []
    for seed in range(3):
        common = np.random.default_rng(seed).normal(25, 4, N)
        for i, (name, shift) in enumerate(shifts.items()):
            own = np.random.default_rng(100 * seed + i).normal(0, 0.5, N)
            made.append(part(name.replace("_", "-"), seed, common + shift + own))
    return Scores(made)


def test_pairing_finds_what_the_spread_of_pictures_hides() -> None:
    found = scores(a=0.0, b=0.3)
    alone = found.interval("a", "psnr_db")
    paired = found.difference("b", "a", "psnr_db")
    assert alone is not None and paired is not None
    assert alone.high - alone.low > 0.5  # wider than the difference
    assert paired.low > 0.1 and abs(paired.mean - 0.3) < 0.1
    back = found.difference("a", "b", "psnr_db")
    assert back is not None and back.mean == pytest.approx(-paired.mean)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator, covered = np.random.default_rng(0), 0
    resampler = Resampler(40, draws=1000)
    for _ in range(300):
        found = resampler.interval(generator.normal(1.0, 2.0, 40))
        covered += found.low <= 1.0 <= found.high
    assert 0.88 < covered / 300 < 0.99


def test_what_one_calibration_shows_and_the_next_does_not_is_undecided() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.normal(0, 0.1, (3, N))
    shifts = np.array([[0.3], [0.1], [-0.1]])  # far beyond the pictures' own noise, and not of one sign
    resampler = Resampler(N)
    alone, both = resampler.interval((shifts + pictures).mean(0)), resampler.interval(shifts + pictures)
    assert alone.low > 0 and both.low < 0 < both.high and both.mean == pytest.approx(alone.mean)
    same = resampler.interval(0.1 + pictures)
    assert same.low > 0.05 and same.high - same.low < 0.1  # seeds that agree cost no width


def test_verdicts() -> None:
    assert verdict(2.9, 3.5, 3.0) == "undecided" and verdict(3.1, 3.5, 3.0) == "held"
    assert verdict(1.0, 2.0, 3.0) == "smaller" and verdict(-2, -1, 3.0) == "reversed"
    assert verdict(-0.9, 0.2, 1.0, within=True) == "held"
    assert verdict(-3.0, -1.1, 1.0, within=True) == "reversed"
    assert verdict(-1.5, -0.5, 1.0, within=True) == "undecided"


def test_judging_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = (
        Ordering("up", "", "", "increasing", ("a", "b", "c")),
        Ordering("gap", "", "", "increasing", ("a", "c"), gap=1.5),
        Ordering("near", "", "", "within", ("b", "a", "rtn-w8a8"), gap=1.0),
        Ordering("else", "", "", "increasing", ("a", "b"), models=("other",)),
        Ordering("none", "", "", "increasing", ("a", "no-such-recipe")),
    )
    monkeypatch.setattr(orderings, "load_orderings", lambda: claims)
    rows = judge(scores(a=0.0, b=-0.5, c=0.5), "tiny")
    said = [(r["id"], r["verdict"]) for r in rows]
    assert said == [
        ("up", "reversed"), ("up", "held"), ("gap", "smaller"), ("near", "held"), ("near", "not run"),
        ("none", "not run"),
    ]  # fmt: skip
    assert "not in this comparison" in rows[4]["note"] and "missing in this version" in rows[5]["note"]


def test_same_bytes_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Ordering("size", "", "", "increasing", ("a", "b"), same_bytes=True)
    monkeypatch.setattr(orderings, "load_orderings", lambda: (claim,))
    low, high = np.full(N, 20.0), np.full(N, 21.0)
    assert judge(Scores([part("a", 0, low, 100), part("b", 0, high, 101)]), "")[0]["verdict"] == "held"
    assert judge(Scores([part("a", 0, low, 100), part("b", 0, high, 110)]), "")[0]["verdict"] == "undecided"


def test_the_file_names_recipes_of_this_version() -> None:
    claims = load_orderings()
    assert len({o.id for o in claims}) == len(claims) > 15
    unknown = {r for o in claims for m in o.models or ("",) for r in o.recipes if not parse_known(r, m)}
    assert not unknown
    assert not parse_known("mixdq-w4-budget")  # one model's own allocation


def test_recipe_names() -> None:
    names = [r.name for r in expand("rtn, rtn-w8a8, fp8-fp8*, rtn-w8a8+weight_bits=3")]
    assert names[-1] == "rtn-w8a8+weight_bits=3" and len(set(names)) == len(names)
    assert {"rtn-w4a4", "fp8-fp8", "fp8-fp8-e4m3"} <= set(names)
    every = [r.name for r in expand("all-ptq", "dit-64")]
    judged = {r for o in load_orderings() if o.concerns("dit-64") and not o.study for r in o.recipes}
    assert judged <= set(every) and set(quant.list_presets()) <= set(every)  # one word makes the whole table
    assert [r.name for r in expand("all-ptq")] == quant.list_presets()  # no claims about an unknown model
    for wrong, says in (
        ("rtn-w8a9", "did you mean"),
        ("x*", "no preset matches"),
        ("rtn-w8a8+bits", "no change"),
    ):
        with pytest.raises(ValueError, match=says):
            expand(wrong)
