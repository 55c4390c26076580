"""Every input of the table ends as the table says; and what no table can say of folders that are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from brainit import datasets
from brainit.datasets import simulated
from brainit.datasets.files import pictures
from brainit.errors import InputError, MissingDataError
from tests.brainit.datasets.bad_inputs import TABLE, Row
from tests.brainit.datasets.conftest import TINY, write_haxby, write_mat
from tests.brainit.datasets.inputs import cut


def open_it(row: Row, tmp: Path) -> tuple[str, Any, Any]:
    name, root = row.make(tmp)
    if name == "draw":
        return name, root, lambda: pictures.draw(root, 4, 0, 8)
    if name == "preset":
        return name, root, lambda: simulated.preset("small", **root)
    return name, root, lambda: datasets.open(name, root, **row.options)


@pytest.mark.parametrize("case", TABLE)
def test_table(case: str, tmp_path: Path) -> None:
    row = TABLE[case]
    name, root, read = open_it(row, tmp_path)
    if not row.code:
        subject = read()
        assert row.right(subject)
        warnings = subject.info["warnings"]
        assert any(row.says in line for line in warnings) if row.says else not warnings, warnings
        findings = datasets.check(name, root, **row.options)
        assert not [f for f in findings if f.severity == "error"]
        assert not row.says or any(f.severity == "warning" and row.says in f.message for f in findings)
        return
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert row.says in message
    assert "\n" not in message and caught.value.exit_code == row.code
    if name in datasets.list_datasets():
        errors = [f.message for f in datasets.check(name, root, **row.options) if f.severity == "error"]
        assert any(row.says in line for line in errors), "check says the same"


@pytest.mark.parametrize("share", np.linspace(0.005, 0.995, 40))
def test_a_mat_file_cut_anywhere_is_one_line(tmp_path, share):
    path = cut(write_mat(tmp_path / "a.mat"), share)
    with pytest.raises(InputError, match=r"\.mat"):
        datasets.open("mat", path)


def test_options_with_unknown_values(tmp_path):
    path = write_mat(tmp_path / "a.mat")
    for option, value in (("nan", "ignore"), ("zscore", "run"), ("order", "K")):
        with pytest.raises(InputError, match=f"{option} is '{value}'; allowed: "):
            datasets.open("mat", path, **{option: value})


def test_one_subject_of_haxby_without_some_runs_is_a_warning(tmp_path):
    write_haxby(tmp_path, n_runs=3)
    warnings = [f.message for f in datasets.check("haxby2001", tmp_path) if f.severity == "warning"]
    assert any("runs missing of 12: 4, 5" in w for w in warnings)
    with pytest.raises(InputError, match="test_run 9 of runs"):
        datasets.open("haxby2001", tmp_path, test_run=9)
    with pytest.raises(InputError, match="mask 'amygdala' is not there"):
        datasets.open("haxby2001", tmp_path, mask="amygdala")


def test_missing_is_also_bad_input():
    assert issubclass(MissingDataError, InputError)


def test_simulation_refuses_a_folder_with_other_things(tmp_path, simulation):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(InputError, match="is not empty and holds no simulation"):
        simulated.generate(tmp_path)
    with pytest.raises(InputError, match="holds another simulation"):
        simulated.generate(simulation, simulated.preset("small", **TINY, seed=9))
    assert (tmp_path / "thesis.txt").read_text() == "important"


def test_unknown_preset_of_a_simulation():
    with pytest.raises(InputError, match="unknown preset 'huge' of simulated subjects; allowed: small"):
        simulated.preset("huge")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="No space left"):
        simulated.generate(tmp_path / "s", simulated.preset("small", **TINY))
    assert (
        not list((tmp_path / "s").glob("sub-*"))
        and not (tmp_path / "s" / "dataset_description.json").exists()
    )
