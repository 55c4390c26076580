"""Blending two pictures by spatial frequency: each is used where it is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from brainit.structure.blend import Blend


@pytest.mark.parametrize("shape", [(16, 16), (32, 32, 3)])
def test_each_prediction_is_used_in_the_bands_where_it_is_right(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 + 0.1 * rng.standard_normal((40, *shape))
    mean = np.full(shape, 0.5, np.float32)
    row, column, *_ = np.indices(shape)
    low = np.hypot(row, column) < 6

    def kept(where: np.ndarray) -> np.ndarray:
        noise = 0.1 * rng.standard_normal(truth.shape)
        parts = dctn(truth - mean, axes=(1, 2), norm="ortho") * where
        return idctn(parts + noise * ~where, axes=(1, 2), norm="ortho") + mean

    first, second = kept(low), kept(~low)
    blend = Blend.fit(truth[:30], first[:30], second[:30], mean)
    found = blend(first[30:], second[30:])
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    errors = [((p - truth[30:]) ** 2).mean() for p in (found, first[30:], second[30:])]
    assert errors[0] < 0.1 * min(errors[1:])
    for name, (of_second, of_first) in blend.weights.items():
        right, wrong = (of_first, of_second) if int(name.split("_")[1]) < 6 else (of_second, of_first)
        assert right == pytest.approx(1, abs=0.02) and wrong < 0.15


def test_a_prediction_that_is_too_faint_is_raised_and_one_that_is_noise_dropped() -> None:
    rng = np.random.default_rng(1)
    truth = 0.5 + 0.1 * rng.standard_normal((60, 12, 12))
    noise = 0.5 + 0.1 * rng.standard_normal((60, 12, 12))
    blend = Blend.fit(truth, 0.5 + (truth - 0.5) / 4, noise, np.full((12, 12), 0.5))
    for of_noise, of_faint in blend.weights.values():
        assert of_faint == pytest.approx(4, rel=0.05) and of_noise < 0.05
