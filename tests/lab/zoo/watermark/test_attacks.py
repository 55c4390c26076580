from __future__ import annotations

import pytest
import torch

from lab.zoo.watermark.attacks import ATTACKS, attacked
from lab.zoo.watermark.threats import average_mark, fine


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    coarse = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_repeatable_and_leave_pictures_of_8_bits(name: str, images: torch.Tensor) -> None:
    made = attacked(images, ATTACKS[name])
    assert torch.equal(made, (made * 255).round() / 255) and 0 <= made.min() and made.max() <= 1
    assert torch.equal(made, attacked(images, ATTACKS[name]))
    assert torch.equal(made, images) == (name == "PNG")
    assert made.shape == images.shape or name == "crop to half the area"


def test_the_average_of_pictures_shows_what_all_of_them_carry(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    mark = 0.02 * torch.randn(1, 3, 64, 64)
    many, others = (torch.rand(300, 3, 1, 1) * torch.ones(300, 3, 64, 64) for _ in range(2))
    guess = average_mark(many + mark, others)
    assert torch.allclose(guess, fine(mark), atol=1e-4)
