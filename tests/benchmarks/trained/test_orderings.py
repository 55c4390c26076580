"""Orderings of what is trained: rows that exist, claims judged over common seeds, going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.trained import orderings
from benchmarks.trained.judging import configured
from benchmarks.trained.rows import CLAIMS, ROWS
from lab.errors import InputError

SHARED = {"model": "dit-64", "steps": 40, "rates": 2.0, "pictures": 4, "made_from": "abc", "recording": "r"}


def test_every_claim_is_about_rows_and_every_row_is_a_recipe() -> None:
    names = {(row.method, row.name) for row in ROWS}
    assert len(names) == len(ROWS)
    assert {pair for claim in CLAIMS for pair in (claim.worse, claim.better)} <= names
    jobs = orderings.planned(SHARED, [0, 1])
    assert len({job["key"] for job in jobs}) == len(jobs) == 2 * len(ROWS)
    assert [job["seed"] for job in jobs] == [0] * len(ROWS) + [1] * len(ROWS)
    steps = [getattr(configured(job), "train_steps", 0) for job in jobs[: len(ROWS)]]
    assert steps == sorted(steps, reverse=True) and steps[0] == 80
    quest = next(job for job in jobs if job["name"] == "3 + sensitive layers")
    assert configured(quest).train_steps == 20  # two stages of half as many
    with pytest.raises(InputError, match="--rows 'nothing'"):
        orderings.planned(SHARED, [0], "nothing")


def test_other_settings_are_other_measurements() -> None:
    one = orderings.planned(SHARED, [0], "qvgen W3A3 3")[0]
    for change in ({"steps": 41}, {"made_from": "abd"}, {"pictures": 5}, {"rates": 3.0}):
        assert orderings.planned({**SHARED, **change}, [0], "qvgen W3A3 3")[0]["key"] != one["key"]
    assert (
        orderings.planned({**SHARED, "recording": "elsewhere"}, [0], "qvgen W3A3 3")[0]["key"] == one["key"]
    )


def found(row: str, seed: int, error: float) -> dict:
    about = {"snr_db": 10 - error, "bits_a_weight": 3.0, "bytes": 10**6, "train_steps": 5, "seconds": 1.0}
    return {"key": f"{row}{seed}", "method": "qvgen W3A3", "row": row, "seed": seed, "error": error,
            "recipe": "qvgen-w3a3", "peak_mb": 1.0, "notes": {}, **about}  # fmt: skip


def test_verdicts_need_every_seed(tmp_path: Path) -> None:
    rows = [found("1 no helper", s, 3.0) for s in (0, 1)] + [
        found("2 dropped at once", s, 2.0) for s in (0, 1)
    ]
    rows += [found("3 rank decay", 0, 1.0), found("3 rank decay", 1, 2.5)]
    verdict = {(c["worse"], c["better"]): c for c in orderings.judged(rows)}
    held, mixed = (
        verdict["1 no helper", "2 dropped at once"], verdict["2 dropped at once", "3 rank decay"]
    )  # fmt: skip
    assert (held["verdict"], held["gain"], held["seeds"]) == ("held", 1.0, 2)
    assert (mixed["verdict"], mixed["least"], mixed["greatest"]) == ("mixed", -0.5, 1.0)
    assert verdict["1 none", "2 time layers"]["verdict"] == "not run"
    turned = [{**row, "error": 5 - row["error"]} for row in rows[:4]]
    assert orderings.judged(turned)[-4]["verdict"] == "reversed"
    orderings.write(rows, tmp_path, "about")
    assert set(orderings.read_known([tmp_path / "trained.jsonl"])) == {row["key"] for row in rows}
    page = (tmp_path / "trained.md").read_text()
    assert "**mixed**" in page and "2.00000 [2.00000, 2.00000]" in page
    (tmp_path / "bad.jsonl").write_text(json.dumps({"seed": 1}) + "\n")
    with pytest.raises(InputError, match=r"bad\.jsonl, line 1: not a finished row"):
        orderings.read_known([tmp_path / "bad.jsonl"])
