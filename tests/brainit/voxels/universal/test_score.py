"""Scores of voxels: correlation, ceilings of averages, shares."""

from __future__ import annotations

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.voxels.scaling import VoxelScaler
from brainit.voxels.universal import score_voxels
from brainit.voxels.universal.score import averaged_ceiling, correlations


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


def test_share_of_a_perfect_prediction_is_1_over_the_ceiling_and_none_without_signal(world) -> None:
    subject = world.subjects[0]
    subject.noise_ceiling[:2] = 0, 0.5
    scaler = VoxelScaler.fit(subject.part("train").betas)
    score = score_voxels(subject.part("test").betas, subject, scaler)
    np.testing.assert_allclose(score.correlation, 1, atol=1e-6)
    assert np.isnan(score.share[0]) and score.share[1] == pytest.approx(2, rel=1e-5)
    with pytest.raises(InputError, match="29 predictions for 30 test"):
        score_voxels(subject.part("test").betas[1:], subject, scaler)
