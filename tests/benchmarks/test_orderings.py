"""Statistics and verdicts on parts whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

import quant
from benchmarks import orderings
from benchmarks.orderings import Ordering, claimed, everything, judge, load_orderings, parse_known, verdict
from benchmarks.ptq import words
from lab.compare.measuring import Measured
from lab.compare.statistics import Scores

N = 200


def part(recipe: str, seed: int, psnr: np.ndarray, size: int = 100) -> Measured:
    return Measured(recipe, seed, {"psnr_db": psnr}, {}, {"bytes": size})


def scores(**shifts: float) -> Scores:
    """Recipes that differ from a common picture difficulty by a shift and small noise of their own."""
    made = []
    for seed in range(3):
        common = np.random.default_rng(seed).normal(25, 4, N)
        for i, (name, shift) in enumerate(shifts.items()):
            own = np.random.default_rng(100 * seed + i).normal(0, 0.5, N)
            made.append(part(name.replace("_", "-"), seed, common + shift + own))
    return Scores(made)


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


def test_recipes_of_claims_and_of_the_committed_tables() -> None:
    every, named = everything("dit-64"), claimed("dit-64")
    trains = {p for p in quant.list_presets() if quant.get_method(quant.get_preset(p).method).info.trains}
    assert set(named) | (set(quant.list_presets()) - trains) <= set(every)
    assert trains and not trains & set(every)  # thousands of steps each: they have tables of their own
    one = next(o for o in load_orderings() if o.id == "svdquant-ablation")
    assert claimed("dit-64", one.id) == list(one.recipes)
    assert words("rtn-w8a8,claim:svdquant-ablation", "dit-64") == ",".join(["rtn-w8a8", *one.recipes])
    assert words("", "dit-64").split(",") == every
    assert claimed("a model nobody knows") == [] or set(claimed("a model nobody knows")) < set(every)
    studies = {r for o in load_orderings() if o.study for r in o.recipes}
    assert studies - set(every)  # they are too long for a table of everything
