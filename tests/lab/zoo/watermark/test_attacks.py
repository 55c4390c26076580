from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lab.zoo.watermark import evaluation
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


def test_averages_are_of_other_content_and_judged_on_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    numbered = torch.arange(240.0)[:, None, None, None].expand(-1, 3, 2, 2) / 255
    made = SimpleNamespace(marked=numbered, unmarked=numbered, photographs=numbered)
    seen, judged = [], []

    def numbers(pictures: torch.Tensor) -> set[int]:
        return {round(float(x)) for x in pictures[:, 0, 0, 0] * 255}

    def average(*given: torch.Tensor) -> torch.Tensor:
        seen.append([numbers(x) for x in given])
        return torch.zeros(1, 3, 2, 2)

    def row(kind: str, name: str, pictures: torch.Tensor, reference: torch.Tensor) -> dict:
        judged.append(numbers(reference))
        return {"kind": kind, "name": name}

    monkeypatch.setattr(evaluation, "average_mark", average)
    monkeypatch.setattr(evaluation, "fine", lambda x: torch.zeros_like(x))
    rows = evaluation._averaging(SimpleNamespace(row=row), made)
    assert [r["name"] for r in rows[:4]] == ["average of 10"] * 2 + ["average of 60"] * 2
    assert [(len(marked), len(others)) for marked, others in seen] == [(10, 10), (60, 60)]
    assert not any(marked & others or (marked | others) & judged[0] for marked, others in seen)
    assert all(found == set(range(120, 240)) for found in judged)
