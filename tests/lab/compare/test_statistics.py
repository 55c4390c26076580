"""Bootstrap intervals on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lab.compare.measuring import Measured
from lab.compare.statistics import Resampler, Scores
from lab.compare.summary import SETS, neighbours, rows
from lab.compare.tables import cell

N = 200


def scores(**shifts: float) -> Scores:
    """Recipes that differ from a common picture difficulty by a shift and small noise of their own."""
    made = []
    for seed in range(3):
        common = np.random.default_rng(seed).normal(25, 4, N)
        for i, (name, shift) in enumerate(shifts.items()):
            noise = np.random.default_rng(100 * seed + i).normal(0, 0.5, N)
            made.append(Measured(name, seed, {"psnr_db": common + shift + noise}, {}, {}))
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


def test_rows_and_neighbours_by_hand() -> None:
    made = scores(worse=0.0, better=1.0, same=1.0)
    for name, one in ((name, one) for name, seeds in made.by_recipe.items() for one in seeds.values()):
        one.arrays["st_lpips"] = 1 - 0.01 * one.arrays["psnr_db"]
        one.numbers |= {"noise_nmse": 0.1 * (one.seed + 1), f"{SETS[0]}.high": float(one.seed)}
        one.arrays["psnr_db"] = one.arrays["psnr_db"] - (1 if name == "same" else 0)
    table = {row["recipe"]: row for row in rows(made)}
    assert next(iter(table)) == "better"
    by_seed = [float(one.arrays["psnr_db"].mean()) for one in made.by_recipe["better"].values()]
    row = table["better"]
    assert row["psnr_db"] == pytest.approx(np.mean(by_seed)) and row["seeds"] == 3 and row["n"] == N
    assert (row["psnr_db.seed_min"], row["psnr_db.seed_max"]) == (min(by_seed), max(by_seed))
    assert row["noise_nmse"] == pytest.approx(0.2) and row[f"{SETS[0]}.null_high"] == 2
    for metric, least in (("psnr_db", 0.8), ("st_lpips", 0.008)):  # less of a distance is better, too
        (found,) = neighbours(made, ["better", "worse"], metric)
        assert found["difference"] > least and found["low"] > 0 and found["distinguishable"]
        (back,) = neighbours(made, ["worse", "better"], metric)
        assert back["difference"] == pytest.approx(-found["difference"]) and not back["distinguishable"]
        assert back["low"] <= back["difference"] <= back["high"] < 0
    (found,) = neighbours(made, ["same", "worse"], "psnr_db")
    assert found["low"] < 0 < found["high"] and not found["distinguishable"]


def test_a_share_that_is_whole_is_not_certain() -> None:
    made = Scores(
        [Measured("a", seed, {"two_way": np.ones(4), "pixcorr": np.ones(4)}, {}, {}) for seed in (0, 1)]
    )
    found = made.interval("a", "two_way")
    assert found is not None and found.mean == found.high == 1 and found.low == pytest.approx(0.025**0.25)
    assert made.interval("a", "pixcorr").low == 1
    made.by_recipe["a"][0].arrays["two_way"][0] = 0.9
    assert made.interval("a", "two_way").low > 0.9


def test_latents_alone_are_ranked_with_their_intervals() -> None:
    """As pictures are; a recipe of exactly 0 dB, all noise, stands between its neighbours."""
    values = {"best": 3.0, "zero": 0.0, "worst": -2.0}
    made = [Measured(name, 0, {"latent_sqnr_db": np.full(4, db)}, {}, {}) for name, db in values.items()]
    table = rows(Scores(made))
    assert [row["recipe"] for row in table] == ["best", "zero", "worst"]
    assert cell(table[0], "latent_sqnr_db", "{:.1f}", 1.0) == "3.0 [3.0, 3.0]"
    both = {**table[0], "psnr_db": 9.0, "psnr_db.low": 8.0, "psnr_db.high": 10.0}
    assert cell(both, "psnr_db", "{:.0f}", 1.0) == "9 [8, 10]"
    assert cell(both, "latent_sqnr_db", "{:.1f}", 1.0) == "3.0"


def test_only_common_seeds_are_compared() -> None:
    made = scores(a=0.0, b=0.3)
    del made.by_recipe["b"][1]
    made.by_recipe["a"][1].arrays["psnr_db"][:] = 1e6
    assert made.seeds("a", "b") == [0, 2] and made.difference("b", "a", "psnr_db").mean < 1
