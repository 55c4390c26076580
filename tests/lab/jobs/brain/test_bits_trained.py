"""Reconstruction against bits with recipes that train: their cost, their refusal, their rows."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.jobs.brain.bits import Settings, dry_run
from lab.jobs.brain.bits import run as bits
from lab.jobs.contract import Context

SHORT = "+train_steps=2+train_rows=2+held_out_rows=2+calibration_rows=4+look_every=1"


def test_training_has_rows_with_its_cost(trained_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("BRAINLAB_CACHE", str(tmp_path / "cache"))
    recipes = (f"qvgen-w3a3+policy=common{SHORT}", f"binarydm-w1a8{SHORT}")
    result = bits(
        Settings(folder=trained_run, recipes=recipes, out=tmp_path / "out", device="cpu"), Context()
    )
    with Path(result.table).open(encoding="utf-8") as file:
        rows = {row["recipe"]: row for row in csv.DictReader(file)}
    assert set(recipes) <= set(rows)
    for name in recipes:
        assert rows[name]["train_steps"] == "2" and float(rows[name]["train_seconds"]) > 0
        assert rows[name]["arithmetic"] == "simulated"
    assert float(rows[recipes[1]]["weight_bits"]) < float(rows[recipes[0]]["weight_bits"])
    assert not list((tmp_path / "cache" / "training").iterdir())  # checkpoints of what is done are gone


def test_no_time_is_said_before_any_work(trained_run: Path, tmp_path: Path) -> None:
    settings = Settings(
        folder=trained_run, recipes=("qvgen-w4a4",), out=tmp_path / "out", training_minutes=1, device="cpu"
    )
    with pytest.raises(InputError) as caught:
        bits(settings, Context())
    said = str(caught.value)
    assert re.search(r"trains [\d,]+ steps .*one CPU core, and 1 min are allowed", said) and "\n" not in said
    fitting = int(re.search(r"\+train_steps=(\d+)", said)[1])  # type: ignore[index]
    changed = settings.model_copy(update={"recipes": (f"qvgen-w4a4+train_steps={fitting}",)})
    assert dry_run(changed).rows[0]["trains"].startswith("trains ")
    assert not (tmp_path / "out").exists()
