"""Which scores pictures get: networks and distances where pictures are large enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainit.metrics import tensors
from lab.decoding import scores
from lab.decoding.encoder.correlation import BrainCorrelation
from lab.decoding.scores import flat_metrics, networks_for, scorers_for


def test_perceptual_distance_is_0_for_equal_pictures_and_grows() -> None:
    pytest.importorskip("stlpips_pytorch")
    rng = np.random.default_rng(0)
    truth = rng.random((3, 64, 64, 3)).astype(np.float32)
    distance = scorers_for(truth)["st_lpips"]
    noise = rng.standard_normal(truth.shape).astype(np.float32)
    found = [distance(np.clip(truth + s * noise, 0, 1)).mean() for s in (0, 0.05, 0.2)]
    assert found[0] == 0 and found[0] < found[1] < found[2]
    assert distance(truth).shape == (3,)


def test_small_pictures_get_neither_network() -> None:
    truth = np.random.default_rng(0).random((3, 28, 28))
    assert networks_for(truth) == {} and scorers_for(truth) == {}


def test_brain_correlation_stands_beside_what_the_stimuli_reach() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((4, 28, 28))

    def voxels(pictures: np.ndarray) -> np.ndarray:
        return pictures[:, :4, 0] + pictures[:, :4, 1]  # four voxels, each sums two pixels

    brain = BrainCorrelation(voxels, voxels(truth), "sums of pixels")
    flat = flat_metrics(truth, {"quantized": truth**2, "fp": truth, "ridge": 1 - truth}, 200, 0, brain)
    assert flat["brain_correlation.stimuli"] == pytest.approx(1)
    assert flat["ridge.brain_correlation"] == pytest.approx(-1)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(voxels(truth**2), voxels(truth), strict=True)]
    assert flat["brain_correlation"] == pytest.approx(np.mean(expected))
    assert flat["brain_correlation.encoder"] == "sums of pixels"


def test_single_pictures_are_recognised_as_all_of_them_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((6, 48, 48, 3))
    pictures = truth + 4 * rng.normal(size=truth.shape)
    monkeypatch.setattr(
        scores, "networks_for", lambda t: {"feature": lambda x: x.reshape(len(x), -1)[:, :40]}
    )
    flat = [torch.from_numpy(x.reshape(6, -1)[:, :40]) for x in (pictures, truth)]
    expected = tensors.two_way(*flat).numpy()
    assert 0 < expected.mean() < 1
    for keep in ([0, 1, 2, 3, 4, 5], [4, 1]):
        found = scores.recognised(pictures[keep], keep, truth)
        assert found is not None
        np.testing.assert_allclose(found, expected[keep])
    monkeypatch.setattr(scores, "networks_for", lambda t: {})
    assert scores.recognised(pictures, range(6), truth) is None
