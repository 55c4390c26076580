"""ST-LPIPS against values that its released implementation gives for photographs (computed once, 2026)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from lab.errors import InputError
from lab.metrics import weights
from lab.metrics.stlpips import load_stlpips

pytest.importorskip("stlpips_pytorch", reason=f"needs {weights.INSTALL}")


@pytest.fixture(scope="module")
def network():
    return load_stlpips()


def crop(photo: np.ndarray, top: int, left: int, height: int = 64, width: int = 64) -> torch.Tensor:
    cut = photo[top : top + height, left : left + width].copy()
    return torch.from_numpy(cut).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("first", "second", "released"),
    [
        (crop(data.cat(), 100, 150), crop(data.coffee(), 100, 150), 0.5727864503860474),
        (crop(data.cat(), 100, 150), crop(data.cat(), 100, 152), 0.014584658667445183),
        (crop(data.cat(), 0, 0, 149, 210), crop(data.coffee(), 0, 0, 149, 210), 0.5812021493911743),
    ],
)
def test_equals_the_released_network(network, first, second, released):
    assert float(network(first, second)) == pytest.approx(released, abs=2e-5)


def test_zero_for_itself_symmetric_and_growing_with_noise(network):
    photo = crop(data.cat(), 100, 150)
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    steps = [float(network(photo, (photo + s * noise).clamp(0, 1))) for s in (0, 0.02, 0.05, 0.1, 0.3)]
    assert steps[0] == pytest.approx(0, abs=1e-9)
    assert steps == sorted(steps)
    coffee = crop(data.coffee(), 100, 150)
    torch.testing.assert_close(network(photo, coffee), network(coffee, photo))


def test_refusals(network):
    with pytest.raises(InputError, match="32 per side"):
        network(torch.zeros(1, 3, 28, 28), torch.zeros(1, 3, 28, 28))
    with pytest.raises(InputError, match="need equal"):
        network(torch.zeros(1, 3, 64, 64), torch.zeros(2, 3, 64, 64))
