"""Scores of voxels: correlation, ceilings of averages, shares."""

from __future__ import annotations

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.voxels.scaling import VoxelScaler
from brainit.voxels.universal import score_voxels
from brainit.voxels.universal.score import averaged_ceiling, correlations, mean_correlations


def test_correlations_are_numpys_and_0_for_a_constant() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20, 3))
    a[:, 2] = 4
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(2)]
    np.testing.assert_allclose(correlations(a, b), [*expected, 0])


def test_ceiling_of_averages() -> None:
    rng = np.random.default_rng(1)
    signal = rng.standard_normal(200_000)
    trials = signal + 2 * rng.standard_normal((3, 200_000))  # one trial holds a fifth
    explained = np.corrcoef(signal, trials.mean(0))[0, 1] ** 2
    assert averaged_ceiling(np.array([0.2]), np.array([3]))[0] == pytest.approx(explained, abs=0.005)
    assert averaged_ceiling(np.array([0.0, 1.0]), np.array([1, 3])).tolist() == [0, 1]
    # NSD's form with unequal repeats: ncsnr^2 / (ncsnr^2 + (A/3 + B/2 + C) / (A + B + C))
    ncsnr, counts = 0.7, {3: 5, 2: 2, 1: 4}
    doubt = (counts[3] / 3 + counts[2] / 2 + counts[1]) / sum(counts.values())
    single = np.array([ncsnr**2 / (ncsnr**2 + 1)])
    repeats = np.repeat(list(counts), list(counts.values()))
    assert averaged_ceiling(single, repeats)[0] == pytest.approx(ncsnr**2 / (ncsnr**2 + doubt))


def test_share_is_squared_correlation_over_the_ceiling_of_the_average(world) -> None:
    subject, rng = world.subjects[0], np.random.default_rng(0)
    scaler, test = VoxelScaler.fit(subject.part("train").betas), subject.part("test")
    guess = test.betas + rng.standard_normal(test.betas.shape)
    score = score_voxels(guess, subject, scaler)
    r = np.array([np.corrcoef(guess[:, v], test.betas[:, v])[0, 1] for v in range(subject.n_voxels)])
    np.testing.assert_allclose(score.share, r**2 / subject.noise_ceiling, rtol=1e-4)
    few = score_voxels(-guess, subject, scaler)
    assert (few.share == 0).all() and (few.correlation < 0).all()


def test_resampled_correlations_are_those_of_the_pictures_drawn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 12, 3))
    found = mean_correlations(a, b + a, 4, seed=5, block=2)
    drawn = np.random.default_rng(5).integers(0, 12, (4, 12))
    for rows, got in zip([np.arange(12), *drawn], found, strict=True):
        expected = [np.corrcoef(a[rows, k], (b + a)[rows, k])[0, 1] for k in range(3)]
        assert got == pytest.approx(np.mean(expected))


def test_share_of_a_perfect_prediction_is_1_over_the_ceiling_and_none_without_signal(world) -> None:
    subject = world.subjects[0]
    subject.noise_ceiling[:2] = 0, 0.5
    scaler = VoxelScaler.fit(subject.part("train").betas)
    score = score_voxels(subject.part("test").betas, subject, scaler)
    np.testing.assert_allclose(score.correlation, 1, atol=1e-6)
    assert np.isnan(score.share[0]) and score.share[1] == pytest.approx(2, rel=1e-5)
    with pytest.raises(InputError, match="29 predictions for 30 test"):
        score_voxels(subject.part("test").betas[1:], subject, scaler)
