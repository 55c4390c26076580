"""Adapting from the command line: a curve of every method, nothing of an earlier call."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainit import datasets
from brainit.config import PRESETS
from brainit.datasets import simulated
from lab.errors import HardwareError, InputError
from lab.jobs.cohort import adapt as job
from lab.jobs.contract import Context
from lab.runs.lock import FolderLock
from tests.brainit.datasets.inputs import write_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "data"
    sizes = {"n_subjects": 1, "n_voxels": 60, "n_train": 40, "n_shared": 40, "n_test": 6, "n_repeats": 2}
    simulated.generate(root, simulated.preset("small", **sizes, n_sessions=1))
    return root


def test_a_call_without_a_curve_leaves_none(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = {"epochs": 1, "steps_per_epoch": 1}
    monkeypatch.setitem(PRESETS["few"], "train", {**PRESETS["few"].get("train", {}), **brief})
    given = {"dataset": "simulated", "root": root, "out": tmp_path, "device": "cpu"}
    found = job.run(job.Settings(**given, curve=(3, 4), steps=1), Context())
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(float(row["minutes"]), row["method"]) for row in rows} == {
        (minutes, method) for minutes in (3, 4) for method in job.METHODS
    }
    for row in rows:
        assert float(row["two_way low"]) <= float(row["two_way"]) <= float(row["two_way high"])
    assert found.rows[0]["trials"] < found.rows[-1]["trials"] == 40
    assert (tmp_path / "figures" / "curve.png").is_file()
    assert job.run(job.Settings(**given), Context()).rows == []
    assert not (tmp_path / "curve.csv").exists() and not (tmp_path / "figures" / "curve.png").exists()
    assert (tmp_path / "adapted.safetensors").is_file()


def test_a_gpu_that_is_not_there_is_refused_without_a_curve_too(root: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    given = {"dataset": "simulated", "root": root, "out": tmp_path / "out", "device": "cuda"}
    with pytest.raises(HardwareError, match="no CUDA device"):
        job.run(job.Settings(**given), Context())
    assert not (tmp_path / "out").exists()


def test_sessions_that_few_minutes_do_not_reach_are_said(tmp_path: Path) -> None:
    subject = datasets.open("nifti", write_folder(tmp_path / "n", sessions=("01", "02", "03", "04", "05")))
    few = job.Settings(dataset="nifti", minutes=2)
    (line,) = job._odd(few, subject)
    assert (
        "sessions that these do not hold whole (4, 5) are scaled by training trials of later minutes" in line
    )
    assert job._odd(job.Settings(dataset="nifti"), subject) == []
    raw = datasets.open("nifti", tmp_path / "n", zscore="none")
    assert job._odd(few, raw) == []
    small = job._odd(job.Settings(dataset="nifti", curve=(2,)), raw)
    assert len(small) == 1 and "pictures of 8x8 pixels are scored enlarged" in small[0]


def test_too_few_pictures_are_found_before_any_work(tmp_path: Path) -> None:
    write_folder(tmp_path / "n", sessions=("01", "02"))
    given = {"dataset": "nifti", "root": tmp_path / "n", "out": tmp_path / "out", "device": "cpu"}
    with pytest.raises(InputError, match="16 distinct training pictures, too few"):
        job.run(job.Settings(**given), Context())
    again = datasets.open("nifti", write_folder(tmp_path / "m", sessions=("01", "02", "03", "04", "05")))
    twice = replace(again, stimulus_id=np.array([f"p{k % 20 if k < 30 else k}" for k in range(50)]))
    with pytest.raises(
        InputError, match=r"--minutes 2: these minutes show \d+ distinct pictures; at least 24"
    ):
        job._check_minutes(job.Settings(minutes=2), twice)
    assert not (tmp_path / "out").exists()


def test_a_second_job_in_the_same_folder_is_refused(root: Path, tmp_path: Path) -> None:
    given = {"dataset": "simulated", "root": root, "out": tmp_path, "device": "cpu"}
    with FolderLock(tmp_path), pytest.raises(InputError, match="is in use by process"):
        job.run(job.Settings(**given), Context())
