"""Measures in torch equal those of brainit.metrics and, for sampling, those of the decoder."""

from __future__ import annotations

import numpy as np
import torch

from brainit import metrics
from lab import zoo
from lab.compare import measures
from lab.compare.sampling import draw
from lab.zoo.recordings import zoo_scheduler
from lab.zoo.sampling import SamplerSettings, draw_noise, sample


def pictures(n: int, seed: int) -> torch.Tensor:
    return measures.eight_bit(torch.rand(n, 3, 20, 20, generator=torch.Generator().manual_seed(seed)))


def rows(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).double().numpy()


def test_equal_to_the_metrics_of_brainit() -> None:
    a = pictures(6, 0)
    b = measures.eight_bit((a + 0.1 * pictures(6, 1)).clamp(0, 1))
    for name in ("psnr", "ssim", "pixcorr"):
        ours = getattr(measures, name)(b, a).numpy()
        assert np.allclose(ours, getattr(metrics, name)(rows(b), rows(a)), atol=1e-6), name
    features, truth = torch.randn(9, 30), torch.randn(9, 30)
    truth += features
    assert np.allclose(
        measures.two_way(features, truth).numpy(), metrics.two_way(features.numpy(), truth.numpy())
    )


def test_exactly_perfect_and_one_level_off() -> None:
    a = pictures(2, 0)
    assert (measures.psnr(a, a) == measures.PSNR_CAP).all()
    assert (measures.ssim(a, a) == 1).all()
    assert (measures.sqnr_db(a, a) == measures.SQNR_CAP).all() and (measures.relative_l2(a, a) == 0).all()
    b = a.clone()
    b[0, 0, 0, 0] += 1 / 255 if b[0, 0, 0, 0] < 0.5 else -1 / 255
    assert measures.psnr(b, a)[0] < measures.PSNR_CAP and measures.psnr(b, a)[1] == measures.PSNR_CAP
    assert measures.pixcorr(torch.zeros(1, 3, 8, 8), a[:1, :, :8, :8])[0] == 0


def test_sampling_is_the_decoders() -> None:
    model, null = zoo.load("unet-64"), zoo.null_tokens("unet-64")
    noise, tokens = draw_noise(3, 1), torch.randn(3, 17, 192, generator=torch.Generator().manual_seed(2))
    settings = SamplerSettings(steps=2, guidance=2.0)
    ours = draw(model, zoo_scheduler(), noise, tokens, null, steps=2, guidance=2.0)
    assert torch.allclose(ours, sample(model, tokens, null, noise, settings), rtol=1e-3, atol=1e-3)
