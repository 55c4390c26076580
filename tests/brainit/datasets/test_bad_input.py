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
from tests.brainit.datasets.conftest import TINY, mat_parts, write_haxby, write_mat
from tests.brainit.datasets.inputs import cut, edit_image, first, write_folder


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


@pytest.mark.parametrize("asked", ["control-1-2", "12b", "session12", "²12", "sub-0012x"])
def test_a_subject_is_found_by_its_number_not_by_digits_somewhere(tmp_path, asked):
    write_folder(tmp_path / "n")
    (tmp_path / "n" / "sub-01").rename(tmp_path / "n" / "sub-12")
    assert all(
        datasets.open("nifti", tmp_path / "n", right).name == "sub-12" for right in ("12", "012", "S12")
    )
    with pytest.raises(InputError, match=r"is not in .*found: sub-12"):
        datasets.open("nifti", tmp_path / "n", asked)


def test_trials_in_other_units_or_copied_are_warned_of(tmp_path):
    def warned(**changes):
        found = datasets.check("mat", write_mat(tmp_path / "a.mat", **changes))
        return [f.message for f in found if f.severity == "warning" and "betas" in f.message]

    parts = mat_parts()
    assert warned() == []
    assert "betas of test trials have" in warned(fmriTest=parts["fmriTest"] * 100)[0]
    assert "spreads away: other units" in warned(fmriTest=parts["fmriTest"] + 50)[0]
    twice = np.repeat(parts["fmriTrn"][:6], 2, 0)
    assert "6 of 12 training trials have exactly the betas of another training" in warned(fmriTrn=twice)[0]


def test_sessions_in_other_units_are_warned_of_unless_scaled(tmp_path):
    root = write_folder(tmp_path / "n")
    edit_image(first(root, "*betas*"), lambda d, _: d * 1000)

    def warned(**options):
        return [f for f in datasets.check("nifti", root, **options) if "other units" in f.message]

    assert warned(zscore="none") and not warned()


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
