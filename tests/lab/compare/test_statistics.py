"""Bootstrap intervals on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lab.compare.measuring import Measured
from lab.compare.statistics import Resampler, Scores

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
