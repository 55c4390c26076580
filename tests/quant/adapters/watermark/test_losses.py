"""Signal to noise, blur and structural similarity against scipy's filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from quant.adapters.watermark.core import _at_strength
from quant.adapters.watermark.distortions import blurred
from quant.adapters.watermark.losses import picture_loss, psnr, similarity


def drawn(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(seed))


def smoothed(x: np.ndarray, sigma: float, reach: int) -> np.ndarray:
    return gaussian_filter(x, (0, 0, sigma, sigma), mode="mirror", truncate=reach / sigma)


@pytest.mark.parametrize(("sigma", "reach"), [(0.4, 1), (1.0, 3), (1.5, 4)])
def test_a_blur_is_a_gaussian(sigma: float, reach: int) -> None:
    x = drawn(0)
    np.testing.assert_allclose(blurred(x, sigma).numpy(), smoothed(x.numpy(), sigma, reach), atol=1e-6)


def test_signal_to_noise_is_of_each_picture_and_30_db_cost_1() -> None:
    plain = 0.2 + 0.5 * drawn(0)
    error = torch.tensor([0.1, 10**-1.5]).view(2, 1, 1, 1)
    assert psnr(plain + error, plain).tolist() == pytest.approx([20.0, 30.0], abs=1e-4)
    assert float(picture_loss(plain[1:] + 10**-1.5, plain[1:], 0.0)) == pytest.approx(1.0, rel=1e-4)
    marked = plain + 0.01 * drawn(1)
    assert psnr(_at_strength(marked, plain, 27.0), plain).tolist() == pytest.approx([27.0, 27.0], abs=1e-3)


def test_similarity_is_the_published_one() -> None:
    """SSIM of Wang et al. 2004, a Gaussian window of 1.5 pixels, K1 = .01, K2 = .03."""
    a, b = drawn(0), 0.7 * drawn(0) + 0.3 * drawn(1)
    x, y = a.double().numpy(), b.double().numpy()
    mean_x, mean_y = smoothed(x, 1.5, 4), smoothed(y, 1.5, 4)
    var_x, var_y = (smoothed(v * v, 1.5, 4) - m * m for v, m in ((x, mean_x), (y, mean_y)))
    cov = smoothed(x * y, 1.5, 4) - mean_x * mean_y
    light = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    wanted = (light * (2 * cov + 9e-4) / (var_x + var_y + 9e-4)).mean()
    assert float(similarity(a, b)) == pytest.approx(wanted, abs=1e-5)
    assert float(similarity(a, a)) == pytest.approx(1.0, abs=1e-6)
    error = (a - b).square().mean() / 1e-3
    assert float(picture_loss(a, b, 0.4)) == pytest.approx(float(error) + 0.4 * (1 - wanted), rel=1e-4)
