from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.zoo.watermark.training import best, read_training


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
