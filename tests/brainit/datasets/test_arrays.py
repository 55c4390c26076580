"""Bare matrices: the same subject as from NIfTI, whichever file the matrix lies in; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from brainit import datasets
from brainit.errors import InputError, MissingDataError
from tests.brainit.datasets.conftest import write_arrays, write_hdf5
from tests.brainit.datasets.inputs import write_folder


def _hdf5(path: Path, betas: np.ndarray) -> None:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["betas"] = betas


WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "npy": lambda path, betas: np.save(path.with_suffix(".npy"), betas),
    "NPY": lambda path, betas: np.save(path.with_suffix(".NPY").open("wb"), betas),
    "h5": _hdf5,
    "mat": lambda path, betas: scipy.io.savemat(path.with_suffix(".mat"), {"betas": betas}),
    "mat 7.3": lambda path, betas: write_hdf5(path.with_suffix(".mat"), {"betas": betas.astype(float)}),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    "place", ["sub-01/ses-{}_betas", "ses-{}_betas", "sub-01/ses-{}/sub-01_ses-{}_betas"]
)
def test_the_same_subject_as_from_nifti(kind: str, place: str, tmp_path: Path) -> None:
    theirs = write_folder(tmp_path / "n", sessions=("1", "10", "2"))
    ours = tmp_path / "a"
    ours.mkdir()
    (theirs / "stimuli").rename(ours / "stimuli")
    for session in ("1", "10", "2"):
        stem = theirs / "sub-01" / f"ses-{session}" / f"sub-01_ses-{session}"
        volumes = nibabel.load(f"{stem}_desc-betas_statmap.nii.gz").get_fdata(dtype=np.float32)
        file = ours / place.format(*[session] * 2)
        file.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[kind](file, volumes.reshape(-1, volumes.shape[-1]).T)
        table = file.with_name(file.name.removesuffix("betas") + "events.tsv")
        table.write_text(Path(f"{stem}_events.tsv").read_text())
    mine = datasets.open("arrays", ours)
    (ours / "stimuli").rename(theirs / "stimuli")
    same = datasets.open("nifti", theirs)
    np.testing.assert_array_equal(mine.betas, same.betas)
    for name in ("stimulus_id", "session", "repeat", "split", "run"):
        assert getattr(mine, name).tolist() == getattr(same, name).tolist(), name
    assert mine.session.tolist() == [1] * 10 + [2] * 10 + [10] * 10
    assert not mine.has_places and mine.info["units"] == same.info["units"]


def _rewritten(root: Path, change: Callable[[np.ndarray], np.ndarray], session: str = "01") -> None:
    file = root / f"ses-{session}_betas.npy"
    np.save(file, change(np.load(file)))


def _renamed(root: Path, name: str) -> Path:
    return (root / "ses-01_betas.npy").rename(root / name)


def _copied(root: Path) -> None:
    (root / "ses-02_betas.npy").write_bytes((root / "ses-01_betas.npy").read_bytes())


def _without_betas(root: Path) -> None:
    for path in root.glob("*betas*"):
        path.unlink()


SPOILED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "turned": (lambda root: _rewritten(root, np.transpose), InputError, "as many: transpose it"),
    "a copy": (_copied, InputError, "one is a copy"),
    "no session": (lambda root: _renamed(root, "betas.npy"), InputError, "does not say its session"),
    "fewer voxels": (
        lambda root: _rewritten(root, lambda betas: betas[:, 1:], "02"), InputError,
        "has 31 voxels and files before it 32",
    ),
    "volumes": (lambda root: _rewritten(root, lambda b: b.reshape(10, 4, 8)), InputError, "a row a trial"),
    "no table": (lambda root: (root / "ses-01_events.tsv").unlink(), MissingDataError, "needs its events"),
    "two forms": (lambda root: _hdf5(root / "ses-01_betas", np.ones((10, 32))), InputError, "ses-01_betas"),
    "another name": (
        lambda root: write_hdf5(_renamed(root, "ses-01_betas.h5"), {"x": np.ones((2, 2))}), InputError,
        "found: x",
    ),
    "another kind": (lambda root: _renamed(root, "ses-01_betas.h5"), InputError, "no HDF5 file"),
    "nothing": (_without_betas, MissingDataError, "expected ses-01_betas.npy"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_refused(case: str, tmp_path: Path) -> None:
    spoil, error, says = SPOILED[case]
    spoil(write_arrays(tmp_path / "a"))
    with pytest.raises(error, match=says) as caught:
        datasets.open("arrays", tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_repeats_give_a_noise_ceiling(tmp_path: Path) -> None:
    root = write_arrays(tmp_path / "a")
    table = root / "ses-02_events.tsv"
    table.write_text(
        table.read_text().replace("p18", "p8").replace("p19", "p9")
    )  # tests shown in both sessions
    subject = datasets.open("arrays", root)
    assert subject.noise_ceiling is not None and subject.repeat.max() == 1
    assert subject.info["noise_ceiling"] == "estimated from repeated test pictures"
    said = " ".join(finding.message for finding in datasets.check("arrays", root))
    assert "in 2 sessions; each of 2 test pictures was shown 2 times" in said
