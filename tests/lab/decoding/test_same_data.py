"""A run's data are noted whole: trials, pictures, and where voxels are."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainit import datasets
from brainit.datasets.simulated.write import DESCRIPTION
from lab.decoding import same_data
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError, MissingDataError
from tests.brainit.conftest import make_sample


def test_other_places_or_regions_are_other_data(tmp_path: Path) -> None:
    (subject,) = make_sample(1).subjects
    same_data.claim(tmp_path, same_data.marks([subject]))
    same_data.check(tmp_path, replace(subject, betas=subject.betas.copy()))
    moved = replace(subject, xyz=subject.xyz + 1)
    other = replace(subject, roi={**subject.roi, "V9": np.arange(subject.n_voxels) % 2 == 0})
    for changed in (moved, other, replace(subject, betas=subject.betas + 1)):
        with pytest.raises(InputError, match="was made from other data"):
            same_data.check(tmp_path, changed)
        with pytest.raises(InputError, match="was made from other data"):
            same_data.claim(tmp_path, same_data.marks([changed]))


def test_unknown_places_are_always_the_same(tmp_path: Path) -> None:
    (subject,) = make_sample(1).subjects
    nowhere = replace(subject, xyz=np.full_like(subject.xyz, np.nan))
    same_data.claim(tmp_path, same_data.marks([nowhere]))
    same_data.check(tmp_path, replace(nowhere, xyz=-np.full_like(subject.xyz, np.nan)))


def test_a_folder_of_before_places_were_noted_goes_on(tmp_path: Path) -> None:
    (subject,) = make_sample(1).subjects
    short = same_data.marks([subject])[subject.name].partition("-")[0]
    (tmp_path / same_data.FILE).write_text(json.dumps({subject.name: short}))
    same_data.check(tmp_path, replace(subject, xyz=subject.xyz + 1))
    with pytest.raises(InputError, match="was made from other data"):
        same_data.check(tmp_path, replace(subject, betas=subject.betas + 1))


def test_another_subject_has_not_changed_but_is_another(tmp_path: Path) -> None:
    (subject,) = make_sample(1).subjects
    same_data.claim(tmp_path, same_data.marks([subject]))
    other = replace(subject, name="sub-77")
    with pytest.raises(InputError, match=f"was made from subject {subject.name}, not from subject sub-77"):
        same_data.check(tmp_path, other)
    with pytest.raises(InputError, match=f"not from subjects {subject.name}, sub-77"):
        same_data.claim(tmp_path, same_data.marks([subject, other]))


def test_simulated_subjects_of_a_finished_run_are_read_where_they_moved_to_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (subject,) = make_sample(1).subjects
    there, given = tmp_path / "there", list[dict]()
    same_data.claim(tmp_path, same_data.marks([subject]))
    (tmp_path / "config.yaml").write_text("root: /elsewhere\n")
    made_from = {"preset": "demo", "seed": 20, "features": "efficientnet"}
    config = ReconstructConfig(dataset="simulated", root=str(there), options=made_from)
    monkeypatch.setattr(datasets, "open", lambda *where, **options: given.append(options) or subject)
    with pytest.raises(MissingDataError, match="there holds no simulated subjects"):
        same_data.check_finished(tmp_path, config)
    there.mkdir()
    (there / DESCRIPTION).touch()
    same_data.check_finished(tmp_path, config)
    assert given == [{"preset": "demo", "seed": 20}]  # readers know nothing of what they are made from


def test_data_that_changed_before_a_finished_run_was_copied_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is younger than the change, though the run is older: its own date counts where it was kept."""
    (subject,) = make_sample(1).subjects
    run, data = tmp_path / "run", tmp_path / "data"
    run.mkdir()
    data.mkdir()
    same_data.claim(run, same_data.marks([subject]))
    (run / "config.yaml").write_text(f"root: {data}\n")
    (data / "a.mat").touch()
    (run / "done.json").touch()
    os.utime(run / "done.json", (1e9, 1e9))  # as a copy that keeps dates
    config = ReconstructConfig(dataset="mat", root=str(data))
    changed = replace(subject, betas=subject.betas + 1)
    monkeypatch.setattr(datasets, "open", lambda *where, **options: changed)
    with pytest.raises(InputError, match="was made from other data"):
        same_data.check_finished(run, config)
