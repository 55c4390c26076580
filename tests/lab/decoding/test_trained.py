"""A trained run that is only read: what stands beside scores that are made from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.decoding.trained import TrainedRun
from lab.errors import InputError

ALONE = {"leak": {"leak_test_in_train": 0}, "leak_line": "leak check: 0 of 4"}


def test_leaks_are_those_over_everybody_that_was_trained_on(trained_run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "run"
    shutil.copytree(trained_run, mine)
    file = mine / "subject.json"
    known = json.loads(file.read_text())
    found = {"leak": {**known["leak"], "leak_test_in_train": 2}, "leak_line": "leak check: 2 of 4"}
    file.write_text(json.dumps(known | found))
    assert TrainedRun.open(mine).leaks(ALONE) == found
    file.unlink()
    assert TrainedRun.open(mine).leaks(ALONE) == ALONE, "of before this was kept"
    file.write_text("{")
    with pytest.raises(InputError, match=r"subject\.json is damaged"):
        TrainedRun.open(mine).leaks(ALONE)


def test_data_that_were_moved_are_found_where_they_lie_now(trained_run: Path, tmp_path: Path) -> None:
    before = TrainedRun.open(trained_run).config.root
    moved = TrainedRun.open(trained_run, tmp_path)
    assert (moved.config.root, moved.lay) == (str(tmp_path.resolve()), before)
    same = moved.config.model_copy(update={"root": moved.lay})
    assert same == TrainedRun.open(trained_run).config, "nothing else of the run is changed"
