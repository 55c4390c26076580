"""The scripts of ``data_scripts`` end with the right code and say where the data is."""

from __future__ import annotations

import subprocess
import sys

from tests.brainit.datasets.conftest import write_mat


def run(repo, script, *arguments):
    command = [sys.executable, str(repo / "data_scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_digits69_is_copied_and_checked(repo, tmp_path):
    done = run(repo, "digits69.py", write_mat(tmp_path / "mine.mat"), "--root", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d" / "digit69_28x28.mat").is_file() and "leak check: 0 of 4" in done.stdout
    assert "not the file" in done.stderr


def test_digits69_never_takes_the_place_of_another_file(repo, tmp_path):
    there = write_mat(tmp_path / "digit69_28x28.mat").rename(tmp_path / "digit69_28x28.mat")
    before = there.read_bytes()
    done = run(repo, "digits69.py", write_mat(tmp_path / "mine.mat", labelTrn=None), "--root", tmp_path)
    assert done.returncode == 2 and "is another file" in done.stderr and there.read_bytes() == before


def test_missing_digits69_ends_with_4(repo, tmp_path):
    done = run(repo, "digits69.py", tmp_path / "none.mat")
    assert done.returncode == 4 and "ChangdeDu/DGMM" in done.stderr and done.stderr.count("\n") == 1


def test_unknown_preset_ends_with_2(repo, tmp_path):
    done = run(repo, "simulate.py", "--preset", "huge", "--root", tmp_path / "s")
    assert done.returncode == 2 and "allowed: small, demo, cohort-small, cohort" in done.stderr
    assert not (tmp_path / "s").exists()
