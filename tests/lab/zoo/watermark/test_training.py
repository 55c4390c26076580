from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lab.errors import InputError
from lab.files import hash_file
from lab.runs.lock import FolderLock
from lab.zoo.data import Pictures
from lab.zoo.watermark import training
from lab.zoo.watermark.files import EXTRACTOR
from lab.zoo.watermark.training import Effort, best, read_training, train
from quant.adapters.presets import resolve
from quant.adapters.watermark.lowrank import read_about


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


def test_a_key_of_another_extractor_or_message_is_neither_reused_nor_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = torch.randint(
        0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    few = Pictures(drawn, torch.arange(16) % 2 * 100_000)
    monkeypatch.setattr(training, "training", lambda data, limit=None: few)
    monkeypatch.setattr(training, "held_out", lambda data: few)
    config = resolve("watermark-48+key_steps=2+extractor_steps=2+key_batch=2+extractor_batch=2")[2]

    def keys(**given: object) -> list[dict]:
        return train(tmp_path, tmp_path, config, (0,), Effort(), **given)["keys"]  # type: ignore[arg-type]

    made = keys(extractor=EXTRACTOR)
    file = tmp_path / "key-0.safetensors"
    assert [key["steps"] for key in made] == [2] and read_about(file)["extractor"] == hash_file(EXTRACTOR)
    assert keys(extractor=EXTRACTOR) == made  # nothing is trained again
    for given, what in (({}, "extractor"), ({"extractor": EXTRACTOR, "messages": ["01" * 24]}, "message")):
        before = file.read_bytes()
        with pytest.raises(InputError, match=f"was trained with another {what}: give another folder"):
            keys(**given)
        assert file.read_bytes() == before and not (tmp_path / "extractor.safetensors").exists()
    file.unlink()  # a record of a key that is gone does not stand for it
    assert len(keys(extractor=EXTRACTOR, messages=["01" * 24])) == 1
    assert read_about(file)["message"] == "01" * 24
    with FolderLock(tmp_path), pytest.raises(InputError, match="is in use by process"):
        keys(extractor=EXTRACTOR)
