"""Full budgets: recipes exist, costs are read from the course of training, tables say what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.trained import full
from quant import recipes


def row(recipe: str, course: dict[str, float], seconds: float) -> dict[str, Any]:
    return {
        "recipe": recipe, "model": "dit-64", "error": 0.1, "snr_db": 12.0, "held_out_first": 1.0,
        "held_out": min(course.values()), "by_step": course, "bits_a_weight": 4.4, "file_bytes": 3e6,
        "train_steps": 300, "train_seconds": seconds, "seconds": seconds + 5, "peak_mb": 900.0,
        "commit": "abc1234",
    }  # fmt: skip


def test_every_recipe_exists() -> None:
    assert all(recipes.parse(recipe).config() for recipe in full.RECIPES)
    assert {*full.LOW_RANK, *full.WHOLE} <= set(full.RECIPES)


def test_a_name_that_no_recipe_has_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["full", "--out", str(tmp_path / "out"), "--recipes", "kept1"])
    with pytest.raises(SystemExit) as ended:
        full.main()
    assert ended.value.code == 2 and not list(tmp_path.iterdir())
    assert "'kept1' is in no recipe's name" in capsys.readouterr().err.splitlines()[-1]


def test_a_row_that_fails_is_named_and_leaves_the_others_theirs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job: dict[str, Any]) -> None:
        raise RuntimeError("two devices\nand a trace")

    monkeypatch.setattr(full, "quantized", fail)
    assert full.measured({"name": "rtn-w4a4"}) == {"recipe": "rtn-w4a4", "fault": "RuntimeError: two devices"}
    assert "and a trace" in capsys.readouterr().err


def test_cost_is_read_where_both_reach_one_error(tmp_path: Path) -> None:
    low, whole = full.LOW_RANK[0], full.WHOLE[0]
    cheap = row(low, {"0": 1.0, "100": 0.5, "200": 0.4, "300": 0.35}, 30.0)
    dear = row(whole, {"0": 1.0, "100": 0.7, "200": 0.4, "300": 0.38}, 60.0)
    lines = "\n".join(full.cost([cheap, dear]))
    assert "0.3800" in lines  # the least error that both reach
    assert f"| `{low}` | 300 | 100 | 30 |" in lines
    assert f"| `{whole}` | 300 | 200 | 60 |" in lines
    slow = row(full.WHOLE[1], {"0": 1.0, "100": 0.9, "200": 0.8, "300": 0.7}, 60.0)
    assert f"| `{full.WHOLE[1]}` | not reached | 200 | – |" in "\n".join(full.cost([cheap, dear, slow]))
    assert full.cost([cheap]) == []
    full.write([cheap], {whole: "RuntimeError: out of memory"}, tmp_path, "commit {commits}")
    assert "commit abc1234\n" in (tmp_path / "full.md").read_text()
    assert f"Not measured: `{whole}` (RuntimeError: out of memory)." in (tmp_path / "full.md").read_text()
    assert full.read(tmp_path / "full.jsonl") == [cheap]
    page = full.markdown([cheap, dear], "about")
    assert page.index("efficientdm-w4a4") < page.index("Low-rank factors")


def test_stages_are_read_as_one_course_whatever_their_names() -> None:
    later = {"held_out_first": 0.392, "held_out": 0.391}  # "sensitive" stands before "time" in a ledger
    first = {"held_out_first": 2.034, "held_out": 0.392}
    assert full.course([later, first]) == {"held_out_first": 2.034, "held_out": 0.391}
    assert full.course([]) == {"held_out_first": None, "held_out": None}


def test_rows_of_other_settings_are_not_taken_for_these(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from lab.compare.about import hardware

    toy = row("rtn-w4a4", {"0": 1.0}, 1.0) | {"device": hardware("cpu"), "budget": "train_steps=2"}
    full.write([toy], {}, tmp_path / "table", "commit {commits}")
    words = ["full", "--out", str(tmp_path / "out"), "--publish", str(tmp_path / "table")]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("lab.zoo.recordings.zoo_recording", lambda *given, **more: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        full.main()
    assert ended.value.code == 2 and not (tmp_path / "out").exists()
    assert "rtn-w4a4 has budget 'train_steps=2', asked for is ''" in capsys.readouterr().err
    plain = row("rtn-w4a4", {"0": 1.0}, 1.0) | {"device": "cpu"}
    assert full.differing([plain], {**full.DEFAULTS, "device": "cpu"}) == ""
    assert "samples 320" in full.differing([plain], {"samples": 8})
    assert "device 'cpu'" in full.differing([plain], {"device": "a GPU"})
