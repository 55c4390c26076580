"""Bad files: each gives one line that says what is wrong and what to do, and the right exit code."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.io

from brainit import datasets
from brainit.datasets import simulated
from brainit.errors import InputError, MissingDataError
from tests.brainit.datasets.conftest import AFFINE, TINY, events_text, mat_parts, write_haxby, write_mat


def cut(path: Path, share: float = 0.5) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def _mat(tmp: Path, **changes) -> tuple[str, Path]:
    return "mat", write_mat(tmp / "a.mat", **changes)


def mat_truncated(tmp):
    return "mat", cut(write_mat(tmp / "a.mat"))


def mat_header_only(tmp):
    return "mat", cut(write_mat(tmp / "a.mat"), 0.01)


def mat_empty(tmp):
    (tmp / "a.mat").write_bytes(b"")
    return "mat", tmp / "a.mat"


def mat_is_text(tmp):
    (tmp / "a.mat").write_text("not a matrix\n" * 40)
    return "mat", tmp / "a.mat"


def mat_hdf5_truncated(tmp):
    import h5py

    with h5py.File(tmp / "a.mat", "w") as file:
        for key, value in mat_parts(n_voxels=900).items():
            file[key] = value.T
    return "mat", cut(tmp / "a.mat")


def mat_missing_variable(tmp):
    return _mat(tmp, stimTest=None)


def mat_not_square(tmp):
    return _mat(tmp, stimTrn=np.zeros((12, 35), np.uint8), stimTest=np.zeros((4, 35), np.uint8))


def mat_rows_differ(tmp):
    return _mat(tmp, stimTrn=mat_parts()["stimTrn"][:-1])


def mat_voxels_differ(tmp):
    return _mat(tmp, fmriTest=mat_parts()["fmriTest"][:, 1:])


def mat_labels_differ(tmp):
    return _mat(tmp, labelTest=np.ones((3, 1)))


def mat_nan(tmp):
    bad = mat_parts()["fmriTrn"]
    bad[2, 5] = np.nan
    return _mat(tmp, fmriTrn=bad)


def mat_all_constant(tmp):
    return _mat(tmp, fmriTrn=np.ones((12, 9)))


def mat_negative_pictures(tmp):
    return _mat(tmp, stimTrn=mat_parts()["stimTrn"].astype(float) - 9)


def mat_is_struct(tmp):
    return _mat(tmp, fmriTrn={"a": 1})


def mat_one_training_trial(tmp):
    return _mat(tmp, fmriTrn=np.ones((1, 9)), stimTrn=np.zeros((1, 36)), labelTrn=np.ones((1, 1)))


def two_mat_files(tmp):
    write_mat(tmp / "a.mat")
    write_mat(tmp / "b.mat")
    return "mat", tmp


def digits_folder_without_file(tmp):
    return "digits69", tmp


def haxby_missing_folder(tmp):
    return "haxby2001", tmp / "nowhere"


def haxby_empty_folder(tmp):
    return "haxby2001", tmp


def _haxby(tmp: Path) -> Path:
    return write_haxby(tmp, n_runs=3) / "sub001"


def haxby_mask_on_another_grid(tmp):
    path = _haxby(tmp) / "masks" / "25mm" / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 3, 2), np.uint8), AFFINE), path)
    return "haxby2001", tmp


def haxby_mask_shifted(tmp):
    path = _haxby(tmp) / "masks" / "25mm" / "brain.nii.gz"
    shifted = AFFINE.copy()
    shifted[0, 3] = 12
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 3, 2), np.uint8), shifted), path)
    return "haxby2001", tmp


def haxby_mask_empty(tmp):
    path = _haxby(tmp) / "masks" / "25mm" / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), AFFINE), path)
    return "haxby2001", tmp


def _events(tmp: Path, text: str) -> tuple[str, Path]:
    (_haxby(tmp) / "task001_run002" / "bold_events.tsv").write_text(text)
    return "haxby2001", tmp


def haxby_run_without_events(tmp):
    return _events(tmp, events_text([]))


def haxby_run_without_events_file(tmp):
    (_haxby(tmp) / "task001_run002" / "bold_events.tsv").unlink()
    return "haxby2001", tmp


def haxby_event_after_the_end(tmp):
    return _events(tmp, events_text([(10, 20, "face"), (145, 20, "cat")]))


def haxby_unknown_trial_type(tmp):
    return _events(tmp, events_text([(10, 20, "face"), (50, 20, "giraffe")]))


def haxby_onset_is_no_number(tmp):
    return _events(tmp, "onset\tduration\ttrial_type\nsoon\t20\tface\n")


def haxby_events_without_column(tmp):
    return _events(tmp, "onset\tduration\n10\t20\n")


def haxby_corrupt_gzip(tmp):
    path = _haxby(tmp) / "task001_run002" / "bold_25mm.nii.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    path.write_bytes(raw)
    return "haxby2001", tmp


def haxby_cut_gzip(tmp):
    cut(_haxby(tmp) / "task001_run002" / "bold_25mm.nii.gz")
    return "haxby2001", tmp


def haxby_not_nifti(tmp):
    path = _haxby(tmp) / "task001_run001" / "bold_25mm.nii.gz"
    path.write_bytes(gzip.compress(b"hello"))
    return "haxby2001", tmp


def haxby_bold_missing(tmp):
    (_haxby(tmp) / "task001_run003" / "bold_25mm.nii.gz").unlink()
    return "haxby2001", tmp


def _nifti(tmp: Path, simulation: Path) -> Path:
    shutil.copytree(simulation, tmp / "n")
    return tmp / "n"


def _first(root: Path, pattern: str) -> Path:
    return sorted((root / "sub-01").rglob(pattern))[0]


def nifti_no_subject(tmp):
    return "nifti", tmp


def nifti_betas_nan(tmp, simulation):
    root = _nifti(tmp, simulation)
    path = _first(root, "*betas*")
    image = nibabel.load(path)
    data = image.get_fdata(dtype=np.float32)
    data[tuple(np.argwhere(nibabel.load(_first(root, "*_mask.nii.gz")).get_fdata() > 0)[0])] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, image.affine), path)
    return "nifti", root


def nifti_rows_and_volumes_differ(tmp, simulation):
    root = _nifti(tmp, simulation)
    path = _first(root, "*_events.tsv")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    return "nifti", root


def nifti_events_gone(tmp, simulation):
    root = _nifti(tmp, simulation)
    _first(root, "*_events.tsv").unlink()
    return "nifti", root


def nifti_bad_split(tmp, simulation):
    root = _nifti(tmp, simulation)
    path = _first(root, "*_events.tsv")
    path.write_text(path.read_text().replace("\ttrain", "\tvalidate"))
    return "nifti", root


def nifti_mask_gone(tmp, simulation):
    root = _nifti(tmp, simulation)
    _first(root, "*_mask.nii.gz").unlink()
    return "nifti", root


def nifti_mask_other_grid(tmp, simulation):
    root = _nifti(tmp, simulation)
    path = _first(root, "*_mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), path)
    return "nifti", root


def nifti_pickled_stimuli(tmp, simulation):
    root = _nifti(tmp, simulation)
    np.savez(
        root / "stimuli" / "stimuli.npz", ids=np.array([{"a": 1}], dtype=object), images=np.zeros((1, 4, 4))
    )
    return "nifti", root


def nifti_cut_stimuli(tmp, simulation):
    root = _nifti(tmp, simulation)
    cut(root / "stimuli" / "stimuli.npz")
    return "nifti", root


def nifti_pictures_gone(tmp, simulation):
    root = _nifti(tmp, simulation)
    with np.load(root / "stimuli" / "stimuli.npz", allow_pickle=False) as file:
        ids, images = file["ids"][:-1], file["images"][:-1]
    np.savez(root / "stimuli" / "stimuli.npz", ids=ids, images=images)
    return "nifti", root


def nifti_bad_description(tmp, simulation):
    root = _nifti(tmp, simulation)
    (root / "dataset_description.json").write_text("{")
    return "nifti", root


CASES = {
    mat_truncated: (2, "cut short"),
    mat_header_only: (2, "cannot be read"),
    mat_empty: (2, "is empty"),
    mat_is_text: (2, "cannot be read"),
    mat_hdf5_truncated: (2, "cannot be read"),
    mat_missing_variable: (2, "stimTest is missing; found: "),
    mat_not_square: (2, "35 pixels; allowed: a square number"),
    mat_rows_differ: (2, "fmriTrn has 12 rows (trials) and stimTrn has 11"),
    mat_voxels_differ: (2, "fmriTrn has 9 columns and fmriTest has 8"),
    mat_labels_differ: (2, "labelTest has 3 labels for 4 trials"),
    mat_nan: (2, "1 of 9 voxels hold NaN or infinite values (first: voxel 5)"),
    mat_all_constant: (2, "no voxel of 9 changes"),
    mat_negative_pictures: (2, "allowed: 0..1 or 0..255"),
    mat_is_struct: (2, "allowed: a matrix"),
    mat_one_training_trial: (2, "fmriTrn has 1 trial"),
    two_mat_files: (2, "holds 2 .mat files"),
    digits_folder_without_file: (4, "holds no digit69_28x28.mat; get digit69_28x28.mat from"),
    haxby_missing_folder: (4, "does not exist; download it with"),
    haxby_empty_folder: (4, "holds no haxby2001 subject"),
    haxby_mask_on_another_grid: (2, "must lie on the grid of its data"),
    haxby_mask_shifted: (2, "affines that differ by 12 mm"),
    haxby_mask_empty: (2, "none of its 24 voxels is set"),
    haxby_run_without_events: (2, "holds no events"),
    haxby_run_without_events_file: (4, "every run needs its events"),
    haxby_event_after_the_end: (2, "'cat' at 145 s ends at 165 s, after the run's end at 150 s"),
    haxby_unknown_trial_type: (2, "unknown trial_type 'giraffe'; allowed: bottle, cat"),
    haxby_onset_is_no_number: (2, "onset 'soon'"),
    haxby_events_without_column: (2, "column trial_type is missing"),
    haxby_corrupt_gzip: (2, "damaged or cut short"),
    haxby_cut_gzip: (2, "damaged or cut short"),
    haxby_not_nifti: (2, "cannot be read as NIfTI"),
    haxby_bold_missing: (4, "bold_25mm.nii.gz does not exist"),
    nifti_no_subject: (4, "holds no sub-* folder"),
    nifti_betas_nan: (2, "1 of 60 voxels hold NaN"),
    nifti_rows_and_volumes_differ: (2, "one row a volume"),
    nifti_events_gone: (4, "needs its events"),
    nifti_bad_split: (2, "split is 'validate'; allowed: train, test"),
    nifti_mask_gone: (4, "says which voxels were measured"),
    nifti_mask_other_grid: (2, "must lie on the grid"),
    nifti_pickled_stimuli: (2, "pickled objects, which are not opened"),
    nifti_cut_stimuli: (2, "damaged or cut short"),
    nifti_pictures_gone: (4, "no picture for 1 of"),
    nifti_bad_description: (2, "is not valid JSON"),
}


@pytest.fixture(scope="module")
def simulation(tmp_path_factory):
    return simulated.generate(tmp_path_factory.mktemp("bad") / "s", simulated.preset("small", **TINY))


@pytest.mark.parametrize("make", CASES, ids=lambda f: f.__name__)
def test_bad_files_end_with_one_line_and_the_right_exit_code(make, tmp_path, request):
    more = [request.getfixturevalue("simulation")] if make.__name__.startswith("nifti_") else []
    name, root = make(tmp_path, *more[: make.__code__.co_argcount - 1])
    code, message = CASES[make]
    with pytest.raises(InputError) as caught:
        datasets.open(name, root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == code
    errors = [f for f in datasets.check(name, root) if f.severity == "error"]
    assert any(message in f.message for f in errors), "check says the same"


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
    assert scipy.io is not None
