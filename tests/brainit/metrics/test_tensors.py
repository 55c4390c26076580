"""Scores of tensors: the numpy ones are the same; exact where nothing differs."""

from __future__ import annotations

import numpy as np
import torch

from brainit import metrics
from brainit.metrics import tensors

GOLDEN = {
    "pixcorr": [0.871806290695, 0.89670410559],
    "ssim": [0.68467729309, 0.537615442019],
    "ssim_gauss": [0.620292786392, 0.266516312137],
    "psnr": [15.4965899476, 19.0767822177],
    "two_way_pix": [1, 1],
}


def pictures(n: int, seed: int) -> torch.Tensor:
    return tensors.eight_bit(torch.rand(n, 3, 20, 20, generator=torch.Generator().manual_seed(seed)))


def rows(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).double().numpy()


def test_numpy_callers_get_the_same_numbers() -> None:
    a = pictures(6, 0)
    b = tensors.eight_bit((a + 0.1 * pictures(6, 1)).clamp(0, 1))
    for name in ("mse", "psnr", "ssim", "pixcorr"):
        ours = getattr(tensors, name)(b, a).numpy()
        assert np.allclose(ours, getattr(metrics, name)(rows(b), rows(a)), atol=1e-12), name
    features, truth = torch.randn(9, 30), torch.randn(9, 30)
    truth += features
    assert np.array_equal(
        tensors.two_way(features, truth).numpy(), metrics.two_way(features.numpy(), truth.numpy())
    )


def test_golden_values() -> None:
    """Numbers of scikit-image and numpy on a fixed pattern: published scores stay what they are."""
    y, x = np.mgrid[0:16, 0:16] / 15
    truth = np.stack([0.5 + 0.5 * np.sin(6 * x) * np.cos(4 * y), x * y])
    made = np.clip(truth * 0.8 + 0.15 * np.cos(9 * x + 5 * y), 0, 1)
    for name, expected in GOLDEN.items():
        np.testing.assert_allclose(getattr(metrics, name)(made, truth), expected, rtol=1e-9, err_msg=name)


def test_exactly_perfect_and_one_level_off() -> None:
    a = pictures(2, 0)
    assert (tensors.psnr(a, a, 100.0) == 100).all() and torch.isinf(tensors.psnr(a, a)).all()
    assert (tensors.ssim(a, a) == 1).all()
    b = a.clone()
    b[0, 0, 0, 0] += 1 / 255 if b[0, 0, 0, 0] < 0.5 else -1 / 255
    assert tensors.psnr(b, a, 100.0)[0] < 100 and tensors.psnr(b, a, 100.0)[1] == 100
    assert tensors.pixcorr(torch.zeros(1, 3, 8, 8), a[:1, :, :8, :8])[0] == 0


def test_float32_on_the_device_is_scored_in_float64() -> None:
    a, b = pictures(3, 0), pictures(3, 1)
    assert torch.equal(tensors.ssim(a, b), tensors.ssim(a.double(), b.double()))
    assert tensors.two_way(a.flatten(1), b.flatten(1)).dtype == torch.float64


def test_eight_bit_rounds_and_clips() -> None:
    made = tensors.eight_bit(torch.tensor([0.999, 1.2, -1.0, 0.5, 100.4 / 255])) * 255
    assert made.round().tolist() == [255, 255, 0, 128, 100] and torch.equal(made, made.round())
