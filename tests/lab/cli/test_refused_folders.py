"""Run folders that cannot be used, a full disk, a lock, and a kill: nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cli.main import run
from lab.decoding.settings import ReconstructConfig
from lab.runs.folder import Run
from tests.brainit.datasets.conftest import write_haxby
from tests.lab.cli.refusals import (
    Capture,
    Command,
    Row,
    assert_nothing_half_written,
    mat,
    on_model,
    one_line,
    refused,
)


def out_is_a_file(tmp: Path) -> Command:
    (tmp / "out").write_text("thesis")
    return mat(tmp)


def out_holds_other_files(tmp: Path) -> Command:
    (tmp / "out").mkdir()
    (tmp / "out" / "thesis.tex").write_text("important")
    return mat(tmp)


def out_of_other_settings(tmp: Path) -> Command:
    command = mat(tmp)
    Run.open(tmp / "out", ReconstructConfig(dataset="mat", root=str(tmp / "a.mat"), seed=1)).close()
    return [*command, "--seed", "2"]


def broken_config_in_out(tmp: Path) -> Command:
    (tmp / "out").mkdir()
    (tmp / "out" / "config.yaml").write_text("seed: [1\n")
    return mat(tmp)


def broken_metrics(tmp: Path) -> Command:
    (tmp / "metrics.json").write_text('{"pixcorr": 0.8')
    return ["brain", "evaluate", str(tmp)]


TABLE: dict[str, Row] = {
    # run folders
    "a demo in a quantized model's folder": Row(
        lambda tmp: [(tmp / "config.yaml").write_text("model: dit-64\n"), ["demo", "--out", str(tmp)]][1],
        ("holds other files (config.yaml)",),
    ),
    "--out is a file": Row(out_is_a_file, ("out is a file", "folder")),
    "--out holds other files": Row(out_holds_other_files, ("thesis.tex", "choose a new --out")),
    "--out of other settings": Row(out_of_other_settings, ("seed: 1 -> 2", "choose another --out")),
    "--out with broken settings": Row(broken_config_in_out, ("config.yaml", "not YAML or JSON at line")),
    "metrics of no run": Row(lambda tmp: ["brain", "evaluate", str(tmp)], ("no metrics yet", "--out"), 4),
    "metrics of a run that was stopped": Row(
        lambda tmp: [(tmp / "config.yaml").write_text("dataset: mat\n"), ["brain", "evaluate", str(tmp)]][1],
        ("no metrics yet", "--config", "config.yaml --out"),
        4,
    ),
    "metrics of another command": Row(
        lambda tmp: [(tmp / "config.yaml").write_text("model: dit-64\n"), ["brain", "evaluate", str(tmp)]][1],
        ("is a folder of another command", "give one that brainlab brain reconstruct wrote"),
    ),
    "metrics cut short": Row(broken_metrics, ("metrics.json", "not a JSON file")),
    "a page over runs without an ending": Row(
        on_model("brain", "report", "TMP/a", "TMP/b", "--out", "TMP/both"), ("is a file that ends in .html",)
    ),
    "report of no run": Row(lambda tmp: ["brain", "report", str(tmp)], ("no metrics yet",), 4),
}

#: Rows whose folder is made by the row itself and must be left as it was.
_OWN_OUT = {
    "--out is a file",
    "--out holds other files",
    "--out of other settings",
    "--out with broken settings",
}


@pytest.mark.parametrize("case", TABLE)
def test_one_line_and_nothing_half_written(case: str, tmp_path: Path, capsys: Capture) -> None:
    refused(TABLE[case], tmp_path, capsys, kept=case in _OWN_OUT)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    command = [*mat(tmp_path), "--out", str(tmp_path / "out")]

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run(command) == 2
    assert "disk full" in (line := one_line(capsys)) and "the same command goes on" in line
    assert_nothing_half_written(tmp_path / "out")
    assert run(command) == 0
    assert capsys.readouterr().err == ""


def test_a_locked_folder_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    command = [*mat(tmp_path), "--out", str(tmp_path / "out")]
    assert run(command) == 0
    capsys.readouterr()
    holder = (
        "import fcntl, os, sys, time\n"
        f"h = os.open({str(tmp_path / 'out' / '.lock')!r}, os.O_RDWR)\n"
        "fcntl.flock(h, fcntl.LOCK_EX); os.pwrite(h, b'4242\\n', 0)\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert run(command) == 2
        assert "in use by process 4242" in one_line(capsys)
    finally:
        process.kill()
        process.wait()
    assert run(command) == 0


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_goes_on_to_the_same_end(
    tmp_path: Path, killed: Callable[[list[str], Path], None], capsys: Capture
) -> None:
    """Kill -9 a category run (the quickest whole one) when its first step is done, then run it again."""
    root = write_haxby(tmp_path / "data", n_runs=4)
    small = (
        "model.width=16",
        "model.heads=2",
        "model.depth=0",
        "clusters.n_clusters=4",
        "train.epochs=1",
        "train.steps_per_epoch=10",
    )
    sets = [word for pair in small for word in ("--set", f"brain.{pair}")]
    command = [
        "brain",
        "reconstruct",
        "--dataset",
        "haxby2001",
        "--root",
        str(root),
        "--preset",
        "few",
        *sets,
    ]
    out = tmp_path / "killed"
    killed([*command, "--out", str(out)], out / "steps" / "ridge.json")
    assert not (out / "metrics.json").exists()
    for folder in (out, tmp_path / "whole"):
        assert run([*command, "--out", str(folder)]) == 0
    capsys.readouterr()
    assert run(["brain", "evaluate", str(out), "--compare", str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().out.startswith("equal\n")
    assert not [f for f in out.rglob("*") if ".part" in f.name]
    shutil.rmtree(out)
