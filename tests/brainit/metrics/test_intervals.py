"""Intervals and nulls: coverage, exact cases, seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.metrics import (
    binomial_interval,
    bootstrap_interval,
    paired_interval,
    permutation_null,
    score,
    share_interval,
    sign_flip_p,
)


def test_bootstrap_width_and_seed():
    values = np.random.default_rng(0).standard_normal(400)
    mean, low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert mean == pytest.approx(values.mean())
    assert mean - low == pytest.approx(half, rel=0.08)
    assert high - mean == pytest.approx(half, rel=0.08)
    assert bootstrap_interval(values) == (mean, low, high)
    assert bootstrap_interval(values, seed=1) != (mean, low, high)


def test_bootstrap_covers_about_95_percent():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        _, low, high = bootstrap_interval(generator.standard_normal(60), n_draws=400)
        inside += low <= 0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_one_picture_says_nothing_beyond_itself():
    assert bootstrap_interval(np.array([0.4])) == pytest.approx((0.4, 0.4, 0.4))


def test_paired_interval_cancels_what_pictures_share():
    generator = np.random.default_rng(2)
    shared = 10 * generator.standard_normal(50)
    first, second = shared + 0.5 + 0.1 * generator.standard_normal(50), shared
    gap = paired_interval(first, second)
    assert gap.low > 0.4 and gap.high < 0.6
    assert bootstrap_interval(first).high - bootstrap_interval(first).low > 2


def test_sign_flip_p_agrees_with_enumeration():
    difference = np.array([0.3, 0.1, 0.4, -0.2, 0.5, 0.2])
    all_means = [np.mean(np.array(s) * difference) for s in itertools.product([-1, 1], repeat=6)]
    exact = np.mean(np.abs(all_means) >= difference.mean() - 1e-12)
    assert sign_flip_p(difference, np.zeros(6), n_draws=40_000) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(np.ones(40), np.zeros(40), n_draws=99) == 0.01, "draws that hit nothing are not p = 0"


def test_permutation_null():
    generator = np.random.default_rng(3)
    pairs = generator.standard_normal((20, 20))
    null = permutation_null(pairs, n_draws=4000)
    assert null.chance == pytest.approx(pairs.mean())
    assert null.low < null.chance < null.high
    assert 0.001 < null.p < 0.999
    strong = permutation_null(pairs + 5 * np.eye(20), n_draws=4000)
    assert strong.p == pytest.approx(1 / 4001)
    assert permutation_null(np.eye(2), n_draws=4000).p == pytest.approx(0.5, abs=0.03)  # one of two pairings


def test_binomial_is_exact():
    low, high = binomial_interval(0, 10)[1:]
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 10))


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval(np.array([])),
        lambda: bootstrap_interval(np.array([1.0, np.nan])),
        lambda: bootstrap_interval(np.ones(3), level=95),
        lambda: paired_interval(np.ones(3), np.ones(4)),
        lambda: permutation_null(np.ones((3, 4))),
        lambda: binomial_interval(11, 10),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InputError):
        call()


def test_all_found_of_ten_is_not_certain_to_be_all():
    """Resampling ten ones gives ten ones; the exact interval begins at 0.025 ** (1 / 10)."""
    all_found, none = share_interval(np.ones(10)), share_interval(np.zeros(10))
    assert all_found == pytest.approx((1.0, 0.025 ** (1 / 10), 1.0), abs=1e-6)
    assert none == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 10)), abs=1e-6)
    some = np.array([1.0, 1.0, 0.8, 0.9])
    assert share_interval(some) == bootstrap_interval(some)
    pictures = np.random.default_rng(0).random((6, 12, 12))
    flat = score(pictures, pictures).summary(n_draws=200)
    assert flat["two_way_pix"] == 1 and flat["two_way_pix.low"] < 0.6 and flat["pixcorr.low"] > 0.99


def test_few_pictures_have_exact_p_values():
    """Six differences of one sign: two of 64 ways to flip reach their sum, and no draw may say less."""
    gains = np.array([0.3, 0.1, 0.2, 0.5, 0.4, 0.6])
    for n_draws in (100, 2000):
        assert sign_flip_p(gains, np.zeros(6), n_draws=n_draws) == 2 / 64
    null = permutation_null(np.eye(4), n_draws=500)
    assert null.p == 1 / 24 and null.chance == pytest.approx(0.25)
