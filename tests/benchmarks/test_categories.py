"""Categories at several seeds: a row for each decoder, and what is committed is what the README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import categories
from benchmarks.files import read_csv
from tests.brainit.datasets.conftest import write_haxby

HOME = Path(categories.__file__).parent
TINY = {
    "model": {"width": 16, "heads": 2, "depth": 0},
    "clusters": {"n_clusters": 4},
    "train": {"epochs": 1, "steps_per_epoch": 1},
    "care": {"folds": 1},
}


def test_a_row_for_each_decoder_and_seed(tmp_path: Path) -> None:
    root = write_haxby(tmp_path / "h", n_runs=3)
    rows = categories.decode(root, (0, 5), tmp_path / "runs", brain=TINY, bootstrap=100)
    assert [(row["seed"], row["decoder"]) for row in rows] == [
        (seed, decoder) for seed in (0, 5) for decoder in categories.DECODERS
    ]
    for row in rows:
        assert row["low"] <= row["accuracy"] <= row["high"] and row["n_test"] == 9
        assert row["chance"] == pytest.approx(1 / 3, abs=1e-6)


def test_the_readme_says_what_was_measured() -> None:
    rows = read_csv(HOME / "results" / "haxby2001.csv")
    said = (HOME / "README.md").read_text(encoding="utf-8").replace("\n ", "")
    ours = {row["seed"]: row for row in rows if row["decoder"] == "Brain-IT"}
    first = ours[0]
    bounds = " to ".join(f"{first[key]:.3f}".lstrip("0") for key in ("low", "high"))
    assert f"{first['accuracy']:.3f}".lstrip("0") + f" ({bounds}) at seed 0" in said
    for row in rows:
        if row["decoder"] != "networks alone":
            assert f"{row['accuracy']:.3f}".lstrip("0") in said
