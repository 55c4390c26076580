"""Several recipes at once: a dead process is known at once, slow ones are stopped, steps gathered once."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.trained.parallel import _gather, processes


def _piece(word: str, line: Any) -> None:
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "slow":
        time.sleep(60)
    line.send("" if word == "good" else "wrong")


def test_a_process_that_dies_is_known_at_once_and_slow_ones_are_stopped() -> None:
    began = time.monotonic()
    with closing(processes(_piece, ["slow", "killed", "good", "bad"], 2, began + 600)) as work:
        found = dict(islice(work, 3))
    assert found["good"] == "" and found["bad"] == "wrong"
    assert "exit code -9" in found["killed"] and time.monotonic() - began < 55
    assert list(processes(_piece, ["slow"], 1, began)) == []


def test_measurements_are_gathered_once(tmp_path: Path) -> None:
    there, found = tmp_path / "steps", tmp_path / "one" / "steps"
    there.mkdir()
    found.mkdir(parents=True)
    (there / "a.json").write_text("old")
    for name in ("a.json", "b.json", "b.npz"):
        (found / name).write_text("new")
    _gather(tmp_path / "one", there)
    assert {f.name: f.read_text() for f in there.iterdir()} == {
        "a.json": "old",
        "b.json": "new",
        "b.npz": "new",
    }
