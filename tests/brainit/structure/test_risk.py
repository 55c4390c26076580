"""The least-risk picture and its SSIM."""

from __future__ import annotations

import numpy as np
import torch
from skimage.metrics import structural_similarity

from brainit.structure.risk import least_risk, ssim


def test_ssim_is_scikit_images_default_inside_the_border() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 20, 20)).astype(np.float32)
    ours = ssim(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]).item()
    assert abs(ours - structural_similarity(a, b, data_range=1.0)) < 1e-4


def _loss(y: np.ndarray, samples: np.ndarray, crisp: float) -> float:
    s = np.mean([structural_similarity(y, x, data_range=1.0) for x in samples])
    return float(((samples - y) ** 2).mean() + crisp * (1 - s))


def test_least_risk_beats_the_mean_and_stays_in_range() -> None:
    rng = np.random.default_rng(1)
    samples = np.zeros((1, 30, 16, 16), np.float32)
    for k in range(30):
        at = 4 + rng.integers(0, 6)
        samples[0, k, 3:13, at : at + 3] = 1
    mean = samples.mean(1)
    y = least_risk(samples, mean, crisp=0.1)
    assert y.shape == mean.shape and y.min() >= 0 and y.max() <= 1
    assert _loss(y[0], samples[0], 0.1) < _loss(mean[0], samples[0], 0.1) - 1e-3
    assert least_risk(samples, mean, crisp=0.0) is mean
    colour = least_risk(np.repeat(samples[..., None], 3, -1), np.repeat(mean[..., None], 3, -1), crisp=0.1)
    np.testing.assert_allclose(colour[..., 2], y, atol=1e-6)
