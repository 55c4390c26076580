from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lab.errors import InputError
from lab.zoo.watermark.training import best, null_of, quality, read_training


def written(folder: Path, psnr: float, error: float) -> Path:
    folder.mkdir()
    keys = [{"psnr_db": psnr, "bit_error": error}, {"psnr_db": psnr + 1, "bit_error": error}]
    (folder / "training.json").write_text(json.dumps({"keys": keys}))
    return folder


def test_the_best_training_keeps_32_db_and_then_has_the_fewest_errors(tmp_path: Path) -> None:
    strong = written(tmp_path / "strong", 28.0, 0.001)
    fine = written(tmp_path / "fine", 32.5, 0.004)
    worse = written(tmp_path / "worse", 33.0, 0.02)
    assert best([strong, worse, fine]) == fine
    assert best([strong, written(tmp_path / "weak", 27.0, 0.1)]) == strong
    with pytest.raises(InputError, match="no training"):
        read_training(tmp_path)
    (fine / "training.json").write_text('{"keys": []}')
    with pytest.raises(InputError, match="no trained keys"):
        best([fine])


class Marking:
    """A decoder of four pictures, grey until its factors are attached, and an extractor of four bits."""

    def __init__(self) -> None:
        self.model, self.inputs, self.marked = self, torch.zeros(4), False
        self.bits = torch.tensor([[1, -1, 1, -1], [1, -1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1.0]])

    @contextmanager
    def attached(self, model: object) -> Iterator[None]:
        self.marked = True
        yield
        self.marked = False

    def pictures(self) -> torch.Tensor:
        grey = torch.full((4, 3, 64, 64), 0.4)  # 102 of 255
        grey[:, :, :, ::16] += 0.2 * self.marked * self.bits[:, None, None]
        return grey

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 32, ::16] - 0.4


def test_what_a_key_reaches_by_hand() -> None:
    made = Marking()
    found = quality(made, made, made, "1010")  # type: ignore[arg-type]
    assert found["bit_error"] == pytest.approx(3 / 16) and found["fewest_matches"] == 2
    assert found["psnr_db"] == pytest.approx(10 * torch.log10(torch.tensor(16 / 0.04)).item(), rel=1e-3)
    assert found["psnr_lowest_db"] == pytest.approx(found["psnr_db"], rel=1e-3)
    assert set(found["bit_error_distorted"]) >= {"compress", "crop"}
    assert all(0 <= error <= 1 for error in found["bit_error_distorted"].values())


def test_the_null_of_bits_by_hand() -> None:
    """The first two bits of pictures are one and its opposite, the third is always one."""
    made = Marking()
    bits = torch.tensor([[1, -1, 1, 1], [-1, 1, 1, 1], [1, -1, 1, -1], [-1, 1, 1, 1.0]])
    found = null_of(lambda images: bits * 2, made)  # type: ignore[arg-type]
    assert found["ones"] == pytest.approx(11 / 16)
    assert found["ones_spread"] == pytest.approx(float(torch.tensor([0.5, 0.5, 1, 0.75]).std()))
    assert found["largest_correlation"] == pytest.approx(1.0)
    assert found["output_spread"] == pytest.approx(float((bits * 2).std(0).mean()))
