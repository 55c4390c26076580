"""Variants at two bits: recipes exist and differ, smaller budgets, what the table says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.trained import low
from lab.runs.folder import config_hash
from quant import recipes


def test_every_variant_is_a_recipe_of_its_own() -> None:
    found = {name: recipes.parse(recipe).config() for name, recipe in low.VARIANTS.items()}
    assert len(set(map(repr, found.values()))) == len(found)
    for name, config in found.items():
        stated = {"W4": 4, "W3": 3, "W2": 2}[name[:2]]
        assert config.model_dump().get("weight_bits", stated) == stated, name
        assert "four steps" not in name or config.unroll == 4


def test_a_smaller_budget_takes_the_place_of_a_recipes_own() -> None:
    config = recipes.parse(low.shortened(low.BEST, "train_steps=3+look_every=1")).config()
    assert (config.train_steps, config.look_every, config.rank, config.masters) == (3, 1, 16, "weights")
    for fixed in (f"{low.BASE}+train_steps=0", "rtn-w4a4"):
        assert low.shortened(fixed, "train_steps=3") == fixed


def test_variants_are_chosen_by_words_and_the_preset_is_one() -> None:
    preset = recipes.parse("qvgen-w2a4-branch").config()
    assert preset == recipes.parse(low.BEST).config()
    assert list(low.chosen("start;plain")) == ["W2, start", "W2, plain groups, one prediction"]
    assert list(low.chosen("W2, four steps;start")) == ["W2, start", "W2, four steps"]
    assert low.chosen("") == low.VARIANTS and not low.chosen("nothing of that name")


def test_variants_that_begin_from_the_same_are_one_piece_and_what_is_there_is_left_out(
    tmp_path: Path,
) -> None:
    groups = low.together(low.VARIANTS)
    assert list(groups[0]) == ["W4, rounded", "W2, start", "W2, four steps", "W2, one prediction"]
    assert sorted(name for group in groups for name in group) == sorted(low.VARIANTS)
    assert low.together({"W4, rounded": "rtn-w4a4"}) == [{"W4, rounded": "rtn-w4a4"}]
    some, folders = low.chosen("start;four steps"), [tmp_path / "a", tmp_path / "b"]
    rows = [{"run": "b", "recipe": some["W2, start"]}]
    found = low.pieces(folders, some, rows, tmp_path, "cpu", {})
    first = [(piece.folder.name, list(piece.names.values())) for piece in found[:2]]
    assert first == [("a", ["W2, start", "W2, four steps"]), ("b", ["W2, four steps"])]
    assert len({piece.out for piece in found}) == len(found) == 6


def test_rows_of_another_run_are_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = SimpleNamespace(config={"seed": 1})
    monkeypatch.setattr("lab.decoding.trained.TrainedRun.open", lambda folder: opened)
    file, here = tmp_path / "low.jsonl", config_hash(opened.config)
    assert low.read(file, [tmp_path / "a"]) == []
    file.write_text(json.dumps({"run": "a", "run_hash": here}) + "\n")
    assert len(low.read(file, [tmp_path / "a"])) == 1
    file.write_text(json.dumps({"run": "a", "run_hash": "other"}) + "\n")
    with pytest.raises(ValueError, match="run a with settings other, the one given has"):
        low.read(file, [tmp_path / "a"])
    assert len(low.read(file, [tmp_path / "b"])) == 1


def test_final_latents_are_read_from_the_ledger() -> None:
    assert math.isclose(low.snr_db({"qat": {"held_out": 0.01}}) or 0, 20.0)
    assert low.snr_db({}) is None


def row(run: str, variant: str, below: float) -> dict[str, object]:
    scores = {"two_way_feature": 0.9, "two_way_feature_minus_fp": -below, "two_way_pix": 0.93}
    facts = {"weight_bits": 5.9, "bytes": 3.9e6, "train_steps": 400, "train_seconds": 60.0}
    each = {score: [value, value] for score, value in {**scores, "paired_psnr_to_fp": 20 - below}.items()}
    return {"run": run, "variant": variant, "recipe": variant, "snr_db": 9.5, "paired_psnr_to_fp": 20.0,
            "by_picture": each, "commit": "abc1234", **scores, **facts}  # fmt: skip


def test_the_table_has_runs_and_what_is_paired_over_them(tmp_path: Path) -> None:
    name, start = "W2, four steps", "W2, start"
    rows = [row("a", name, 0.02), row("b", name, 0.04), row("a", start, 0.12), row("b", start, 0.14)]
    low.write(rows, ["W4, rounded on b"], tmp_path, "low", "commit {commits}")
    page = (tmp_path / "low.md").read_text()
    assert page.count(f"| {name} | 0.900 ") == 3 and "| 0.020, 0.040 |" in page and "abc1234" in page
    assert "## All 2 runs" in page and "Not measured: W4, rounded on b." in page
    assert "| -0.030 [-0.040, -0.020] |" in page  # by runs as well as pictures
    assert f"| {name} − {start} | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] | 0.1 [0.1, 0.1] |" in page
    assert [json.loads(line) for line in (tmp_path / "low.jsonl").read_text().splitlines()] == rows
    assert "by_picture" not in (tmp_path / "low.csv").read_text()
    low.write(rows[:1], [], tmp_path, "one", "about")
    assert "runs" not in (tmp_path / "one.md").read_text()
    low.added(rows, [row("a", name, 0.5), row("c", name, 0.5)])
    assert [r["run"] for r in rows] == ["a", "b", "a", "b", "c"]


def test_a_piece_is_measured_row_by_row_with_its_values_by_picture(trained_run: Path, tmp_path: Path) -> None:
    sent: list[Any] = []
    line = SimpleNamespace(send=sent.append)
    names = {"rtn-w8a8": "W8, rounded", "rtn-w3a4+weight_bits=99": "impossible"}
    low.measure(low.Piece(trained_run, tmp_path / "0", names, "cpu", {"commit": "abc1234"}), line)
    assert [row["variant"] for row in sent[0]] == ["full precision", "W8, rounded"]
    assert "weight_bits" in sent[1] and len(sent) == 2  # the other's fault, in one line
    for found in sent[0]:
        each = found["by_picture"]["two_way_pix"]
        assert (
            math.isclose(np.mean(each), found["two_way_pix"], abs_tol=1e-5) and found["commit"] == "abc1234"
        )
    assert "two_way_feature_minus_fp" not in sent[0][0]["by_picture"]
    rows: list[Any] = []
    low.added(rows, sent[0])
    low.write(rows, [], tmp_path / "p", "low", "about")
    assert low.read(tmp_path / "p" / "low.jsonl", [trained_run]) == rows
    given = {"W8, rounded": "rtn-w8a8", "W3, rounded": "rtn-w3a4"}
    assert [piece.names for piece in low.pieces([trained_run], given, rows, tmp_path, "cpu", {})] == [
        {"rtn-w3a4": "W3, rounded"}
    ]
