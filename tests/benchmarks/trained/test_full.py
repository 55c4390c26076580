"""Full budgets: recipes exist, costs are read from the course of training, tables say what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.trained import full, full_tables
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
    assert {*full_tables.LOW_RANK, *full_tables.WHOLE} <= set(full.RECIPES)


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
    def fail(job: dict[str, Any], solved: dict[str, Any]) -> None:
        raise RuntimeError("two devices\nand a trace")

    monkeypatch.setattr(full, "quantized", fail)
    found = full.measured({"name": "rtn-w4a4", "seed": 1}, {})
    assert found == {"recipe": "rtn-w4a4", "seed": 1, "fault": "RuntimeError: two devices"}
    assert "and a trace" in capsys.readouterr().err


def test_cost_is_read_where_both_reach_one_error(tmp_path: Path) -> None:
    low, whole = full_tables.LOW_RANK[0], full_tables.WHOLE[0]
    cheap = row(low, {"0": 1.0, "100": 0.5, "200": 0.4, "300": 0.35}, 30.0)
    dear = row(whole, {"0": 1.0, "100": 0.7, "200": 0.4, "300": 0.38}, 60.0)
    lines = "\n".join(full_tables.cost([cheap, dear]))
    assert "0.3800" in lines  # the least error that both reach
    assert f"| `{low}` | 300 | 100 | 30 |" in lines
    assert f"| `{whole}` | 300 | 200 | 60 |" in lines
    slow = row(full_tables.WHOLE[1], {"0": 1.0, "100": 0.9, "200": 0.8, "300": 0.7}, 60.0)
    assert f"| `{full_tables.WHOLE[1]}` | not reached | 200 | – |" in "\n".join(
        full_tables.cost([cheap, dear, slow])
    )
    assert full_tables.cost([cheap]) == []
    full.write([cheap], {whole: "RuntimeError: out of memory"}, tmp_path, "commit {commits}")
    assert "commit abc1234\n" in (tmp_path / "full.md").read_text()
    assert f"Not measured: `{whole}` (RuntimeError: out of memory)." in (tmp_path / "full.md").read_text()
    assert full.read(tmp_path / "full.jsonl") == [cheap]
    page = full_tables.markdown([cheap, dear], "about")
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


SHARED = {"budget": "train_steps=2", "device": "cpu"}
RECORDINGS = {"dit-64": Path("dit"), "video-dit": Path("video")}


def test_what_is_there_is_not_measured_again_and_one_start_is_one_piece() -> None:
    chosen = full.named(f"{full.START},{full.FINE_TUNED},svdquant-gptq-w4a4")
    assert list(chosen) == [full.START, full.FINE_TUNED, "svdquant-gptq-w4a4"]  # no name that only holds one
    earlier = row("svdquant-gptq-w4a4", {"0": 1.0}, 1.0)  # which does not say its seed
    there = row(full.START, {"0": 1.0}, 1.0) | {"seed": 1}
    pieces = full.planned(chosen, [0, 1], [earlier, there], SHARED, RECORDINGS)
    assert [[(job["name"], job["seed"]) for job in piece] for piece in pieces] == [
        [(full.START, 0), (full.FINE_TUNED, 0)], [(full.FINE_TUNED, 1)], [("svdquant-gptq-w4a4", 1)],
    ]  # fmt: skip
    assert (
        pieces[0][1]["recipe"] == f"{full.FINE_TUNED}+train_steps=2" and pieces[0][0]["recipe"] == full.START
    )
    other = full.planned(
        full.named(f"{full.FINE_TUNED}+rank=32,{full.FINE_TUNED}"), [0], [], SHARED, RECORDINGS
    )
    assert len(other) == 2  # their starts are not one
    assert {model for model in full.named("qvgen-w3a3").values()} == {"video-dit"}


def test_gains_are_paired_over_seeds_and_pictures() -> None:
    generator = np.random.default_rng(0)
    hard = generator.lognormal(0, 2, (1, 64)) * np.ones((3, 1))  # pictures differ by far more than recipes
    better, low, high = full_tables.gained(hard, 1.25 * hard * generator.lognormal(0, 0.02, (3, 64)))
    assert 0.8 < low < better < high < 1.2 and abs(better - 0.969) < 0.1
    by_seed = hard * np.array([[0.8], [1.0], [1.3]])  # an effect that seeds do not agree on
    _, low, high = full_tables.gained(by_seed, hard)
    assert low < 0 < high


def test_differences_are_of_seeds_that_both_have() -> None:
    def judged(recipe: str, seed: int, factor: float) -> dict[str, Any]:
        errors = [factor * (1 + k) for k in range(8)]
        by_picture = {"final_error": errors, "error": [2 * e for e in errors]}
        return row(recipe, {"0": 1.0}, 1.0) | {"seed": seed, "by_picture": by_picture}

    rows = [judged(full.FINE_TUNED, 0, 1.0), judged(full.FINE_TUNED, 1, 1.0), judged(full.START, 1, 10.0),
            row("svdquant-gptq-w4a4", {"0": 1.0}, 1.0)]  # fmt: skip
    lines = full_tables.differences(rows)
    start = (
        f"| `{full.FINE_TUNED}` | `{full.START}` | 1 | +10.00 [+10.00, +10.00] | +10.00 [+10.00, +10.00] |"
    )
    assert start in lines and not any("svdquant" in line for line in lines)
    page = full_tables.markdown(rows, "about")
    assert f"| `{full.FINE_TUNED}` | 2 | 0.1000 [0.1000, 0.1000] |" in page and "Picture by picture" in page
    assert full_tables.differences(rows[3:]) == []


def test_rows_are_written_as_they_come_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    asked: list[Any] = []

    def processes(work: Any, pieces: Any, jobs: int, ends: float) -> Any:
        asked[:] = [(job["name"], job["seed"]) for piece in pieces for job in piece]
        for piece in pieces:
            for job in piece[:1]:
                about = {"seed": job["seed"], "device": job["device_name"], "held_out": None}
                yield piece, row(job["name"], {"0": 1.0}, 1.0) | about
            if len(piece) > 1:
                yield piece, "its process died"

    monkeypatch.setattr(full, "processes", processes)
    monkeypatch.setattr("lab.zoo.recordings.zoo_recording", lambda *a, **k: SimpleNamespace(path=Path("r")))
    words = ["--recipes", f"{full.START},{full.FINE_TUNED},rtn-w4a4", "--seeds", "0,1"]
    monkeypatch.setattr(
        "sys.argv", ["full", "--out", str(tmp_path), "--publish", str(tmp_path / "p"), *words]
    )
    with pytest.raises(SystemExit) as ended:
        full.main()
    assert ended.value.code == 1 and len(asked) == 6
    page = (tmp_path / "p" / "full.md").read_text()
    assert f"Not measured: `{full.FINE_TUNED}, seed 1` (its process died)." in page
    full.main()
    assert asked == [(full.FINE_TUNED, 0), (full.FINE_TUNED, 1)]
    assert len(full.read(tmp_path / "p" / "full.jsonl")) == 6
