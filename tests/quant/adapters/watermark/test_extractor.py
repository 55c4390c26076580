from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from quant.adapters.watermark import distortions
from quant.adapters.watermark.distortions import KINDS, distort, stored
from quant.adapters.watermark.extractor import Extractor
from quant.adapters.watermark.jpeg import jpeg


def smooth(n: int, side: int = 64) -> torch.Tensor:
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("quality", [40, 80])
def test_jpeg_is_close_to_a_real_one(quality: int) -> None:
    images = stored(smooth(2))
    made = jpeg(images, torch.full((2,), float(quality)))
    array = (images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality)
    real = np.asarray(Image.open(file)).astype(np.float32) / 255
    mine = made[0].permute(1, 2, 0).numpy()
    lost = np.square(real - array / 255).mean()
    assert np.square(mine - real).mean() < 0.2 * lost  # the same loss, not only as much
    assert np.square(mine - array / 255).mean() == pytest.approx(lost, rel=0.3)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_distortions_pass_gradients(kind) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    images = smooth(4).requires_grad_(True)
    out = kind(images)
    out.square().sum().backward()
    assert images.grad is not None and bool(images.grad.abs().sum() > 0) and bool(torch.isfinite(out).all())


def test_compression_has_qualities_from_40_to_95(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(distortions, "jpeg", lambda x, quality: seen.append(quality))
    torch.manual_seed(0)
    distortions.compress(torch.zeros(500, 3, 1, 1))
    assert torch.equal(seen[0], seen[0].round()) and seen[0].min() < 45 and seen[0].max() > 90
    assert 40 <= seen[0].min() and seen[0].max() <= 95


def test_groups_are_distorted_apart_and_stored_with_8_bits() -> None:
    groups = distort(smooth(8))
    assert [len(g) for g in groups] == [2, 2, 2, 2]
    assert all(torch.equal(g, (g * 255).round() / 255) for g in groups)


def test_folding_changes_nothing_but_the_form() -> None:
    torch.manual_seed(0)
    reader = Extractor(bits=8, width=16)
    for _ in range(3):
        reader(smooth(8))  # running statistics
    reader.eval()
    before = reader(smooth(4))
    reader.fold()
    assert torch.allclose(reader(smooth(4)), before, atol=1e-5) and reader.config["folded"]
    again = Extractor(**{k: v for k, v in reader.config.items() if not k.startswith("_")})
    again.load_state_dict(reader.state_dict())
    assert torch.equal(again.eval()(smooth(4)), reader(smooth(4)))
    assert reader(smooth(2, side=40)).shape == (2, 8)


def test_whitened_outputs_are_centred_and_uncorrelated() -> None:
    torch.manual_seed(0)
    reader = Extractor(bits=8, width=16).eval()
    images = torch.cat([smooth(64), torch.rand(64, 3, 64, 64)])
    reader.whiten(images, floor=0.0)
    found = reader(images)
    assert found.mean(0).abs().max() < 1e-2
    assert torch.allclose(torch.cov(found.T), torch.eye(8), atol=0.05)


def test_bits_that_never_differ_do_not_break_the_whitening() -> None:
    """Their covariance has an eigenvalue of nothing, or less by rounding."""
    torch.manual_seed(0)
    reader = Extractor(bits=8, width=8).eval()
    with torch.no_grad():
        reader.head.weight[1], reader.head.bias[1] = reader.head.weight[0], reader.head.bias[0]
    images = torch.cat([smooth(32, 32), torch.rand(32, 3, 32, 32)])
    reader.whiten(images)
    found = reader(images).detach()
    assert bool(torch.isfinite(found).all()) and float(torch.cov(found.T).abs().max()) < 1.1
