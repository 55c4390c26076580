"""Blocks of BOLD as betas: each in the voxel that its category lights up; time in other units is noticed."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from brainit import datasets
from brainit.datasets import haxby_files
from brainit.datasets.files.events import Event
from tests.brainit.datasets.conftest import AFFINE, CATEGORIES, write_haxby, write_haxby_nilearn


@pytest.mark.parametrize("write", [write_haxby, write_haxby_nilearn])
def test_a_block_lights_the_voxel_of_its_category(tmp_path, write):
    subject = datasets.open("haxby2001", write(tmp_path / "h"), zscore="none")
    places = [np.flatnonzero((subject.xyz == (AFFINE @ [k, 0, 0, 1])[:3]).all(1)).item() for k in range(3)]
    assert set(subject.labels) == set(CATEGORIES)
    for label, betas in zip(subject.labels, subject.betas, strict=True):
        own = CATEGORIES.index(label)
        assert 1.5 < betas[places[own]] < 3  # 30 of 1000, in a box where the model expects a slow answer
        assert np.abs(np.delete(betas, places[own])).max() < 0.7
    scaled = datasets.open("haxby2001", tmp_path / "h")
    assert sorted(set(subject.run.tolist())) == list(range(1, 5 if write is write_haxby else 4))
    assert len(set(subject.stimulus_id.tolist())) == subject.n_trials, "every block is a stimulus of its own"
    assert {i.split("-")[0] for i in subject.stimulus_id[subject.run == 2]} == {"run02"}
    assert (subject.split == "test").sum() == len(CATEGORIES)
    for run in np.unique(subject.run):  # a run's own mean and deviation, of all its blocks
        raw = subject.betas[subject.run == run].astype(np.float64)
        expected = (raw - raw.mean(0)) / raw.std(0)
        np.testing.assert_allclose(scaled.betas[scaled.run == run], expected, atol=1e-3)


def test_labels_of_volumes_are_blocks_in_seconds():
    names = np.array(["rest", "cat", "cat", "face", "rest", "face"])
    assert haxby_files._blocks(names, 2.5) == [
        Event(2.5, 5, "cat"), Event(7.5, 2.5, "face"), Event(12.5, 2.5, "face")
    ]  # fmt: skip


def test_regions_are_those_of_their_masks(tmp_path):
    root = write_haxby_nilearn(tmp_path / "h")
    folder = root / "haxby2001" / "subj2"
    for k, name in enumerate(("face", "house")):
        one = np.zeros((4, 3, 2), np.uint8)
        one[k, 0, 0] = 1
        nibabel.save(nibabel.Nifti1Image(one, AFFINE), folder / f"mask8_{name}_vt.nii.gz")
    subject = datasets.open("haxby2001", root)
    for k, name in enumerate(("face", "house")):
        assert subject.xyz[subject.roi[name]].tolist() == [(AFFINE @ [k, 0, 0, 1])[:3].tolist()]


def test_the_last_run_is_tested_or_the_one_that_is_named(tmp_path):
    root = write_haxby(tmp_path / "h")
    for options, run in (({}, 4), ({"test_run": 2}, 2)):
        subject = datasets.open("haxby2001", root, **options)
        assert ((subject.split == "test") == (subject.run == run)).all()


def test_onsets_in_volumes_or_milliseconds_do_not_pass_in_silence(tmp_path):
    root = write_haxby(tmp_path / "h")
    path = root / "sub001" / "task001_run002" / "bold_events.tsv"
    head, *rows = path.read_text().splitlines()

    def scaled(by: float) -> list[str]:
        cells = [row.split("\t") for row in rows]
        path.write_text(
            "\n".join([head, *(f"{float(a) * by}\t{float(b) * by}\t{c}" for a, b, c in cells)]) + "\n"
        )
        return [f.message for f in datasets.check("haxby2001", root) if f.severity != "info"]

    assert not [said for said in scaled(1) if "run 2" in said]
    assert any("are onsets in seconds" in said for said in scaled(1 / 2.5))
    assert any("after the run's end" in said for said in scaled(1000))


def test_a_repetition_time_in_the_wrong_unit_is_refused(tmp_path):
    root = write_haxby(tmp_path / "h")
    for path in root.rglob("bold_25mm.nii.gz"):
        image = nibabel.load(path)
        made = nibabel.Nifti1Image(np.asarray(image.dataobj), AFFINE)
        made.header.set_zooms((3, 3, 3, 2500))
        made.header.set_xyzt_units("mm", "sec")
        nibabel.save(made, path)
    (error,) = [f for f in datasets.check("haxby2001", root) if f.severity == "error"]
    assert "2500 s; allowed: 0.1 to 20 s" in error.message
