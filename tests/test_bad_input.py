"""The table of bad input, at the command line: one clear line, the right exit code, nothing half-written.

Each row makes its bad input in a fresh folder and returns the command. What must hold for all of them:
exactly one line on stderr, no traceback, the line names what is wrong and what to do, stdout stays empty, and
the run folder, where there is one at all, holds whole files only and no result.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lab.cli.main import run
from lab.decoding.settings import ReconstructConfig
from lab.runs.folder import Run
from tests.brainit.datasets.bad_inputs import TABLE as FILES
from tests.brainit.datasets.conftest import mat_parts, write_haxby, write_mat

Capture = pytest.CaptureFixture[str]
Command = list[str]


@dataclass(frozen=True)
class Row:
    """One bad input: how it is made, how the command ends, and what its line must say."""

    make: Callable[[Path], Command]
    says: tuple[str, ...]
    code: int = 2


def prepare(dataset: str, root: Path, *more: str) -> Command:
    return ["brain", "prepare", "--dataset", dataset, "--root", str(root), *more]


def of_files(name: str) -> Row:
    """A row of the data sets' own table, at the command line; one of each reader is enough here."""
    row = FILES[name]
    return Row(lambda tmp: prepare(*row.make(tmp)), (row.says,), row.code)


def mat(tmp: Path, *more: str, **changes: object) -> Command:
    return prepare("mat", write_mat(tmp / "a.mat", **changes), *more)


def one_test_trial(tmp: Path) -> Command:
    parts = mat_parts(n_test=1)
    return mat(tmp, **{key: parts[key] for key in ("fmriTest", "stimTest", "labelTest")})


def six_pixels_a_side(tmp: Path) -> Command:
    return mat(tmp, **mat_parts(side=6))


def few_pictures(tmp: Path) -> Command:
    parts = mat_parts(n_train=24)
    parts["stimTrn"] = np.repeat(parts["stimTrn"][:6], 4, 0)
    return [*mat(tmp, **parts), "--dry-run"]


def root_is_a_picture(tmp: Path) -> Command:
    (tmp / "digits.png").write_bytes(b"\x89PNG")
    return prepare("haxby2001", tmp / "digits.png")


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


def config_file(text: str) -> Callable[[Path], Command]:
    def command(tmp: Path) -> Command:
        (tmp / "settings.yaml").write_text(text)
        return mat(tmp, "--config", str(tmp / "settings.yaml"))

    return command


def option(*words: str) -> Callable[[Path], Command]:
    return lambda tmp: mat(tmp, *words)


def reconstruct(*words: str) -> Callable[[Path], Command]:
    """The same through `reconstruct`, whose options are more; a dry run, since the names are at fault."""

    def command(tmp: Path) -> Command:
        root = str(write_mat(tmp / "a.mat"))
        return ["brain", "reconstruct", "--dataset", "mat", "--root", root, "--dry-run", *words]

    return command


def on_model(*words: str) -> Callable[[Path], Command]:
    return lambda tmp: [word.replace("TMP", str(tmp)) for word in words]


def broken_metrics(tmp: Path) -> Command:
    (tmp / "metrics.json").write_text('{"pixcorr": 0.8')
    return ["brain", "evaluate", str(tmp)]


def adapt(*words: str) -> Callable[[Path], Command]:
    def command(tmp: Path) -> Command:
        root = str(write_mat(tmp / "a.mat", **mat_parts(n_train=60, n_test=8)))
        return ["brain", "adapt", "--dataset", "mat", "--root", root, "--out", str(tmp / "out"), *words]

    return command


def foreign_network(raw: bytes | None) -> Callable[[Path], Command]:
    def command(tmp: Path) -> Command:
        file = tmp / "net.safetensors"
        save_file({"x": np.zeros(2)}, file) if raw is None else file.write_bytes(raw)
        return adapt("--model", str(file))(tmp)

    return command


TABLE: dict[str, Row] = {
    # recordings: the whole table is tests/brainit/datasets/bad_inputs.py
    "mat cut short": of_files("mat cut short"),
    "mat is a pickle": of_files("mat is a pickle"),
    "mat is an LFS pointer": of_files("mat is an LFS pointer"),
    "NaN": of_files("NaN"),
    "float 0..255": of_files("float 0..255"),
    "an id twice": of_files("an id twice"),
    "events in latin-1": of_files("events in latin-1"),
    "a stimulus n/a": of_files("a stimulus n/a"),
    "a session in another orientation": of_files("a session in another orientation"),
    "betas NaN": of_files("betas NaN"),
    "mean removed": of_files("mean removed"),
    "NaN in one run": of_files("NaN in one run"),
    "root missing": of_files("root missing"),
    "root empty": of_files("root empty"),
    # recordings that can be read but not used
    "one test trial": Row(one_test_trial, ("1 test picture", "at least 2")),
    "pictures of six pixels a side": Row(six_pixels_a_side, ("6x6 pixels", "need 7 a side")),
    "six different pictures": Row(few_pictures, ("6 distinct training pictures", "needs 8 or more")),
    # roots and names
    "root is a file": Row(root_is_a_picture, ("digits.png",), 4),
    "unknown subject": Row(option("--subject", "sub-99"), ("sub-99", "sub")),
    "unknown dataset": Row(lambda tmp: prepare("digit69", tmp), ("'digit69'", "did you mean 'digits69'?")),
    "unknown option of a dataset": Row(option("--set", "options.colour=red"), ("'colour'", "data info mat")),
    "option of a dataset out of range": Row(option("--set", "options.nan=ignore"), ("'ignore'", "allowed: ")),
    "unknown Brain-IT preset": Row(
        reconstruct("--preset", "huge"), ("preset: 'huge'", "one of small, few, large, nsd")
    ),
    "unknown recipe": Row(reconstruct("--recipe", "rtn-w8a9"), ("'rtn-w8a9'", "did you mean 'rtn-w")),
    "unknown denoiser": Row(reconstruct("--set", "denoiser=unet-46"), ("did you mean 'unet-64'?",)),
    # settings
    "unknown setting": Row(option("--set", "sede=1"), ("'sede'", "did you mean 'seed'?")),
    "--set without a value": Row(option("--set", "seed"), ("expected name=value", "strength=0.5")),
    "seed negative": Row(option("--seed", "-1"), ("seed: -1", "at least 0")),
    "seed is a word": Row(option("--seed", "lucky"), ("--seed", "integer", "--help")),
    "strength out of range": Row(reconstruct("--strength", "1.5"), ("strength: 1.5", "at most 1")),
    "strength NaN": Row(option("--set", "strength=.nan"), ("strength: nan",)),
    "no steps": Row(reconstruct("--steps", "0"), ("steps: 0", "at least 1")),
    "no samples": Row(reconstruct("--n-samples", "0"), ("n-samples: 0", "at least 1")),
    "width and heads do not fit": Row(option("--set", "brain.model.width=97"), ("97", "multiple of heads")),
    "device unknown": Row(reconstruct("--device", "gpu"), ("'gpu'", "one of auto, cpu, cuda")),
    "settings file broken": Row(config_file("seed: [1\n"), ("settings.yaml", "not YAML or JSON at line")),
    "settings file a list": Row(config_file("- 1\n"), ("settings.yaml", "name: value")),
    "settings file that runs code": Row(
        config_file("seed: !!python/object/apply:os.system ['touch /tmp/x']\n"), ("not YAML or JSON",)
    ),
    "settings file missing": Row(option("--config", "nowhere.yaml"), ("nowhere.yaml", "no such settings")),
    # models and recipes (more: tests/quant/test_bad_input.py)
    "an unknown name in a list": Row(on_model("list", "methods", "svdqant"), ("mean 'svdquant'?",)),
    "guidance below 0": Row(on_model("compare", "dit-64", "--guidance", "-1"), ("at least 0 and at most",)),
    "CUDA that is not there, in a dry run": Row(
        on_model("compare", "dit-64", "--recipes", "rtn-w4a4", "--device", "cuda", "--dry-run"),
        ("no CUDA device is visible", "--device cpu"),
        3,
    ),
    "a wildcard given twice": Row(
        on_model("plan", "dit-64", "--override", "*attn*:weight_bits=8", "--override", "*attn*:skip"),
        ("'*attn*' is given twice", "write it once"),
    ),
    "nothing to quantize": Row(
        on_model("quantize", "dit-64", "--recipe", "rtn-w8a8", "--exclude", "*", "--out", "TMP/out"),
        ("leaves all 87 layers alone", "change include, exclude"),
    ),
    "bits given twice": Row(
        on_model("sensitivity", "unet-64", "--bits", "4,8,4", "--out", "TMP/s.json"), ("4 is given twice",)
    ),
    "no share of noise": Row(on_model("brain", "tune", "--strengths", "0.1,2"), ("from 0 to 1 with commas",)),
    "no samples averaged": Row(on_model("brain", "tune", "--averaged", "1,0"), ("0 samples; allowed: 1",)),
    "every ninth of twelve trials": Row(
        lambda tmp: [
            "brain",
            "tune",
            "--dataset",
            "mat",
            "--root",
            str(write_mat(tmp / "a.mat")),
            "--every",
            "9",
        ],
        ("of 12 distinct training pictures that leaves 1", "give --every 3 or less"),
    ),
    "a grid of another ending": Row(
        on_model("brain", "grid", "TMP", "--out", "TMP/a.jpg"), ("ends in .png",)
    ),
    "a grid of another command's folder": Row(
        lambda tmp: [(tmp / "config.yaml").write_text("model: dit-64\n"), ["brain", "decode", str(tmp)]][1],
        ("is a folder of another command",),
    ),
    "pictures into a file": Row(
        lambda tmp: [(tmp / "f").write_text("x"), ["brain", "decode", str(tmp), "--out", str(tmp / "f")]][1],
        ("is a file; --out wants a folder",),
    ),
    "simulated subjects in a file": Row(
        lambda tmp: [(tmp / "f").write_text("x"), ["data", "fetch", "simulated", "--root", str(tmp / "f")]][
            1
        ],
        ("is a file; simulated subjects are a folder",),
    ),
    "a network that is cut short": Row(foreign_network(b"\x10\0\0\0\0\0\0\0{"), ("not a safetensors file",)),
    "a network of another program": Row(foreign_network(None), ("holds no model of ours; allowed: ",)),
    "minutes that were not scanned": Row(adapt("--curve", "60"), ("--curve 60: this subject",)),
    "no minutes": Row(adapt("--curve", "0"), ("--curve 0: this subject has",)),
    "more minutes than all": Row(adapt("--minutes", "99"), ("--minutes 99: this subject has",)),
    "runs of the app are a file": Row(
        lambda tmp: [(tmp / "runs").write_text("x"), ["app", "--runs", str(tmp / "runs")]][1],
        ("is a file; give a folder",),
    ),
    # run folders
    "--out is a file": Row(out_is_a_file, ("out is a file", "folder")),
    "--out holds other files": Row(out_holds_other_files, ("thesis.tex", "choose a new --out")),
    "--out of other settings": Row(out_of_other_settings, ("seed: 1 -> 2", "choose another --out")),
    "--out with broken settings": Row(broken_config_in_out, ("config.yaml", "not YAML or JSON at line")),
    "metrics of no run": Row(lambda tmp: ["brain", "evaluate", str(tmp)], ("no metrics yet", "--out"), 4),
    "metrics cut short": Row(broken_metrics, ("metrics.json", "not a JSON file")),
    "report of no run": Row(lambda tmp: ["brain", "report", str(tmp)], ("no metrics yet",), 4),
    # training (models: tests/lab/models/test_bad_input.py)
    "training pictures missing": Row(
        on_model("zoo", "train", "unet-64", "--data", "TMP/none"), ("none", "no such folder")
    ),
}

#: Rows whose folder is made by the row itself and must be left as it was.
_OWN_OUT = {
    "--out is a file",
    "--out holds other files",
    "--out of other settings",
    "--out with broken settings",
}


def contents(folder: Path) -> dict[str, bytes]:
    files = folder.rglob("*") if folder.is_dir() else [folder] if folder.exists() else []
    return {str(f.relative_to(folder.parent)): f.read_bytes() for f in files if f.is_file()}


def assert_nothing_half_written(out: Path) -> None:
    for file in contents(out):
        name = Path(file).name
        assert name in {"config.yaml", "log.jsonl", ".lock", "subject.json", "data.json", "versions.json"}, (
            file
        )
        if name.endswith(".json"):
            json.loads((out.parent / file).read_text())


def one_line(capsys: Capture) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("reading ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err and "internal error" not in captured.err
    return lines[0]


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 25


@pytest.mark.parametrize("case", TABLE)
def test_one_line_and_nothing_half_written(case: str, tmp_path: Path, capsys: Capture) -> None:
    row, here = TABLE[case], tmp_path
    command = row.make(here)
    if command[:2] in (["brain", "prepare"], ["brain", "reconstruct"]):
        command += ["--out", str(here / "out")]
    before = contents(here / "out")
    assert run(command) == row.code
    line = one_line(capsys)
    for words in row.says:
        assert words in line, line
    if case in _OWN_OUT:
        after = contents(here / "out")
        assert {k: after[k] for k in before} == before and not set(after) - set(before) - {"out/.lock"}
    else:
        assert_nothing_half_written(here / "out")


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
def test_a_killed_run_goes_on_to_the_same_end(tmp_path: Path, capsys: Capture) -> None:
    """Kill -9 a category run (the quickest whole one) when its first step is done, then run it again."""
    root = write_haxby(tmp_path / "data", n_runs=4)
    small = (
        "model.width=16",
        "model.heads=2",
        "clusters.n_clusters=4",
        "train.epochs=1",
        "train.steps_per_epoch=40",
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
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lab.cli.main", *command, "--out", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    first = out / "steps" / "ridge.json"
    deadline = time.monotonic() + 200  # most of it is for importing on a busy machine
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists() and not (out / "metrics.json").exists()
    for folder in (out, tmp_path / "whole"):
        assert run([*command, "--out", str(folder)]) == 0
    capsys.readouterr()
    assert run(["brain", "evaluate", str(out), "--compare", str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().out.startswith("equal\n")
    assert not [f for f in out.rglob("*") if ".part" in f.name]
    shutil.rmtree(out)
