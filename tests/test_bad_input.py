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

from brainit.datasets import simulated
from lab.cli.main import run
from lab.decoding.settings import ReconstructConfig
from lab.runs.folder import Run
from tests.brainit.datasets import test_bad_input as bad
from tests.brainit.datasets.conftest import TINY, mat_parts, write_haxby, write_mat

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


def of_files(make: Callable[..., tuple[str, Path]]) -> Callable[[Path], Command]:
    """Use a damaged data set of the adapters' own tests."""

    def command(tmp: Path) -> Command:
        return prepare(*make(tmp))

    return command


def of_simulation(make: Callable[..., tuple[str, Path]]) -> Callable[[Path], Command]:
    """The same for NIfTI folders, which start from a whole simulated one."""

    def command(tmp: Path) -> Command:
        return prepare(*make(tmp, tmp.parent / "simulation"))

    return command


def mat(tmp: Path, *more: str, **changes: object) -> Command:
    return prepare("mat", write_mat(tmp / "a.mat", **changes), *more)


def one_test_trial(tmp: Path) -> Command:
    parts = mat_parts(n_test=1)
    return mat(tmp, **{key: parts[key] for key in ("fmriTest", "stimTest", "labelTest")})


def no_variance_anywhere(tmp: Path) -> Command:
    return mat(tmp, fmriTrn=np.ones((12, 9)), fmriTest=np.ones((4, 9)))


def constant_voxels_refused(tmp: Path) -> Command:
    parts = mat_parts()
    parts["fmriTrn"][:, 3] = 7
    return mat(tmp, "--set", "options.nan=error", fmriTrn=parts["fmriTrn"] * np.nan)


def pickled_mat(tmp: Path) -> Command:
    import pickle

    (tmp / "a.mat").write_bytes(pickle.dumps({"fmriTrn": [1, 2, 3]}))
    return prepare("mat", tmp / "a.mat")


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


def not_a_model(tmp: Path) -> Command:
    (tmp / "model").mkdir()
    (tmp / "model" / "notes.txt").write_text("no model")
    return ["plan", str(tmp / "model")]


def broken_model(tmp: Path) -> Command:
    (tmp / "model").mkdir()
    (tmp / "model" / "config.json").write_text("{")
    return ["plan", str(tmp / "model")]


def broken_metrics(tmp: Path) -> Command:
    (tmp / "metrics.json").write_text('{"pixcorr": 0.8')
    return ["brain", "evaluate", str(tmp)]


TABLE: dict[str, Row] = {
    # files of .mat form
    "mat cut short": Row(of_files(bad.mat_truncated), ("a.mat", "cut short")),
    "mat of the first bytes only": Row(of_files(bad.mat_header_only), ("a.mat", "cannot be read")),
    "mat empty": Row(of_files(bad.mat_empty), ("a.mat", "is empty")),
    "mat is text": Row(of_files(bad.mat_is_text), ("a.mat", "cannot be read")),
    "mat is a pickle": Row(pickled_mat, ("a.mat", "cannot be read")),
    "mat of HDF5 cut short": Row(of_files(bad.mat_hdf5_truncated), ("a.mat", "cannot be read")),
    "mat without a variable": Row(of_files(bad.mat_missing_variable), ("stimTest is missing", "found: ")),
    "stimuli not square": Row(of_files(bad.mat_not_square), ("35 pixels", "allowed: a square number")),
    "rows of betas and stimuli differ": Row(of_files(bad.mat_rows_differ), ("12 rows", "has 11")),
    "voxels of training and test differ": Row(of_files(bad.mat_voxels_differ), ("9 columns", "has 8")),
    "labels and trials differ": Row(of_files(bad.mat_labels_differ), ("3 labels for 4 trials",)),
    "NaN voxels": Row(of_files(bad.mat_nan), ("1 of 9 voxels hold NaN", "voxel 5")),
    "all voxels NaN": Row(constant_voxels_refused, ("9 of 9 voxels hold NaN",)),
    "no voxel varies": Row(no_variance_anywhere, ("no voxel of 9 changes",)),
    "pictures below zero": Row(of_files(bad.mat_negative_pictures), ("allowed: 0..1 or 0..255",)),
    "a struct in place of a matrix": Row(of_files(bad.mat_is_struct), ("allowed: a matrix",)),
    "one training trial": Row(of_files(bad.mat_one_training_trial), ("fmriTrn has 1 trial",)),
    "one test trial": Row(one_test_trial, ("1 test picture", "at least 2")),
    "two files to choose from": Row(of_files(bad.two_mat_files), ("holds 2 .mat files",)),
    # folders of NIfTI
    "mask on another grid": Row(of_files(bad.haxby_mask_on_another_grid), ("grid of its data",)),
    "mask shifted": Row(of_files(bad.haxby_mask_shifted), ("differ by 12 mm",)),
    "mask empty": Row(of_files(bad.haxby_mask_empty), ("none of its 24 voxels",)),
    "run without events": Row(of_files(bad.haxby_run_without_events), ("holds no events",)),
    "run without its events file": Row(of_files(bad.haxby_run_without_events_file), ("its events",), 4),
    "event after the run's end": Row(of_files(bad.haxby_event_after_the_end), ("145 s", "150 s")),
    "unknown trial type": Row(of_files(bad.haxby_unknown_trial_type), ("'giraffe'", "allowed: bottle")),
    "onset is no number": Row(of_files(bad.haxby_onset_is_no_number), ("onset 'soon'",)),
    "BOLD damaged": Row(of_files(bad.haxby_corrupt_gzip), ("damaged or cut short",)),
    "BOLD cut short": Row(of_files(bad.haxby_cut_gzip), ("damaged or cut short",)),
    "BOLD is no NIfTI": Row(of_files(bad.haxby_not_nifti), ("cannot be read as NIfTI",)),
    "BOLD missing": Row(of_files(bad.haxby_bold_missing), ("does not exist",), 4),
    "betas NaN": Row(of_simulation(bad.nifti_betas_nan), ("1 of 60 voxels hold NaN",)),
    "beta mask on another grid": Row(of_simulation(bad.nifti_mask_other_grid), ("must lie on the grid",)),
    "events and volumes differ": Row(of_simulation(bad.nifti_rows_and_volumes_differ), ("one row a volume",)),
    "unknown split": Row(of_simulation(bad.nifti_bad_split), ("'validate'", "allowed: train, test")),
    "pickled stimuli": Row(of_simulation(bad.nifti_pickled_stimuli), ("pickled objects",)),
    "stimuli cut short": Row(of_simulation(bad.nifti_cut_stimuli), ("damaged or cut short",)),
    "description is no JSON": Row(of_simulation(bad.nifti_bad_description), ("is not valid JSON",)),
    # roots and names
    "root missing": Row(of_files(bad.haxby_missing_folder), ("nowhere", "download it with"), 4),
    "root empty": Row(of_files(bad.haxby_empty_folder), ("holds no haxby2001 subject",), 4),
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
    # run folders
    "--out is a file": Row(out_is_a_file, ("out is a file", "folder")),
    "--out holds other files": Row(out_holds_other_files, ("thesis.tex", "choose a new --out")),
    "--out of other settings": Row(out_of_other_settings, ("seed: 1 -> 2", "choose another --out")),
    "--out with broken settings": Row(broken_config_in_out, ("config.yaml", "not YAML or JSON at line")),
    "metrics of no run": Row(lambda tmp: ["brain", "evaluate", str(tmp)], ("no metrics yet", "--out"), 4),
    "metrics cut short": Row(broken_metrics, ("metrics.json", "not a JSON file")),
    "report of no run": Row(lambda tmp: ["brain", "report", str(tmp)], ("no metrics yet",), 4),
    # models
    "unknown model": Row(on_model("plan", "unet-46"), ("'unet-46'",)),
    "unknown recipe of a model": Row(on_model("plan", "unet-64", "--recipe", "rtn-w3"), ("'rtn-w3'",)),
    "a folder without a model": Row(not_a_model, ("no config.json", "save_pretrained")),
    "a broken model": Row(broken_model, ("config.json is not JSON", "fetch it again")),
    "a part of a model without parts": Row(
        on_model("plan", "unet-64", "--part", "vae"), ("--part vae", "no parts")
    ),
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


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("bad")
    return simulated.generate(base / "simulation", simulated.preset("small", **TINY))


def contents(folder: Path) -> dict[str, bytes]:
    files = folder.rglob("*") if folder.is_dir() else [folder] if folder.exists() else []
    return {str(f.relative_to(folder.parent)): f.read_bytes() for f in files if f.is_file()}


def assert_nothing_half_written(out: Path) -> None:
    for file in contents(out):
        name = Path(file).name
        assert name in {"config.yaml", "log.jsonl", ".lock", "subject.json", "versions.json"}, file
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
def test_one_line_and_nothing_half_written(
    case: str, tmp_path: Path, simulation: Path, capsys: Capture
) -> None:
    row, here = TABLE[case], simulation.parent / case.replace(" ", "-").replace("/", "-")
    here.mkdir()
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
