"""A table is made of what a folder holds; commits and seeds are those of the measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ptq
from benchmarks.files import read_csv, write_csv
from lab.compare.bench import Bench
from lab.compare.recipes import expand
from lab.compare.results import ABOUT
from lab.compare.work import Work
from lab.errors import InputError, MissingDataError
from lab.runs.folder import Run

SAYS = {
    "model": "dit-64", "command": "c", "n": 12, "seeds": 2, "steps": 2, "guidance": 2.0, "conditions": "c",
    "recording": "0" * 64, "hardware": "h", "date": "d", "commit": "new", "versions": {}, "missing": [],
    "bit_ops_rule": "rule", "settings": {},
}  # fmt: skip
ARGUMENTS = ["ptq", "dit-64", "--n", "12", "--seeds", "2", "--steps", "2", "--measured"]


@pytest.fixture
def stopped(bench: Bench, tmp_path: Path) -> Path:
    """Two recipes, one of them at the first seed alone, of two commits."""
    with Run.open(tmp_path / "r", bench.settings.to_dict()) as run:
        Work(bench, run, expand("rtn-w8a8,rtn-w4a4")).all()
    steps = tmp_path / "r" / "steps"
    (late,) = steps.glob("rtn-w4a4.*.seed-1.json")
    late.unlink()
    (early,) = steps.glob("rtn-w8a8.*.seed-0.json")
    record = json.loads(early.read_text())
    record["values"]["numbers"]["commit"] = "0ld"
    early.write_text(json.dumps(record))
    (tmp_path / "r" / ABOUT).write_text(json.dumps(SAYS))
    return tmp_path / "r"


def test_a_stopped_run_is_published(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = tmp_path / "gates.csv"
    write_csv(gates, [{"name": "planted", "expected": "e", "found": "f", "passed": False, "model": "dit-64"}])
    monkeypatch.setenv("BRAINLAB_COMMIT", "ignored")
    monkeypatch.setattr(
        "sys.argv", [*ARGUMENTS, "--out", str(stopped), "--publish", str(tmp_path), "--gates", str(gates)]
    )
    ptq.main()
    rows = {row["recipe"]: row for row in read_csv(tmp_path / "dit-64-ptq.csv")}
    assert (rows["rtn-w8a8"]["seeds"], rows["rtn-w4a4"]["seeds"]) == (2, 1)
    assert rows["rtn-w8a8"]["commit"].startswith("0ld and ")
    assert " and " not in rows["rtn-w4a4"]["commit"]
    text = (tmp_path / "dit-64-ptq.md").read_text()
    assert "--measured" in text and "0ld" in text and "12 pictures at each of 2 seeds" in text
    assert "Of one seed an interval covers pictures only" in text
    assert "| planted | e | f | **failed** |" in text and "same seed, same picture" in text


def test_another_run_than_asked_for_is_refused(stopped: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has n 12, asked for is 256"):
        ptq.measured(stopped, {"model": "dit-64", "n": 256})
    gates = tmp_path / "gates.csv"
    for row in ({"model": "unet-64"}, {}):
        write_csv(gates, [{"name": "planted", "passed": True, **row}])
        with pytest.raises(InputError, match=r"holds gates of .*, asked for is dit-64"):
            ptq.gates_of(gates, "dit-64")
    (stopped / ABOUT).unlink()
    with pytest.raises(MissingDataError, match="an older comparison"):
        ptq.measured(stopped, {})
