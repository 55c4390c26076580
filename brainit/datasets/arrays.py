"""Betas as bare matrices, a table of trials beside each, and a folder of pictures: what a script can write.

::

    dataset_description.json            optional: Name, License, Simulated
    stimuli/<stimulus_id>.png           or stimuli/stimuli.npz; optional
    ses-01_betas.npy                    one row a trial; also .h5, .hdf5, .mat with a matrix "betas"
    ses-01_events.tsv                   one row a trial: stimulus_id, split (trial_type, run, onset)
    sub-01/ses-01_betas.npy             people in folders of their own, or of their sessions below

Where voxels lie is not known, so there are no brain maps; ``nifti`` has them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainit.datasets.files import clean
from brainit.datasets.files.events import Trial, entity, number_sessions, out_of_order, read_trials
from brainit.datasets.files.npz import read_npy
from brainit.datasets.files.presence import check_content, visible
from brainit.datasets.mat import read_mat
from brainit.datasets.sessions import describe, several_sessions
from brainit.errors import InputError, MissingDataError
from brainit.io import fingerprint
from brainit.subject import Subject

ENDINGS = (".npy", ".h5", ".hdf5", ".mat")
_NAME = "betas"
_ALONE = "S1"


def subjects(root: Path) -> list[str]:
    """Return the ``sub-*`` folders; ``S1`` where betas lie in the folder itself."""
    people = [p.name for p in visible(root.glob("sub-*")) if p.is_dir()]
    if people or not _files(root, deep=False):
        if not people:
            raise MissingDataError(
                f"{root} holds no betas; expected ses-01_betas.npy (or {', '.join(ENDINGS[1:])}) with "
                "ses-01_events.tsv beside it, or sub-* folders of these"
            )
        return people
    return [_ALONE]


def load(
    root: Path,
    subject: str | None = None,
    *,
    nan: str = "error",
    zscore: str = "session",
    range: str = "auto",
) -> Subject:
    """Read the matrices and tables of one subject.

    Parameters
    ----------
    root : Path
    subject : str, optional
        A ``sub-*`` folder; default the first.
    nan : {"error", "drop"}
    zscore : {"session", "none"}
        Scale each voxel within each session by the mean and deviation of that session's training trials.
    range : str
        Values of black and white in ``stimuli.npz``, ``"LOW..HIGH"``; ``"auto"``: by type or as it says.

    Raises
    ------
    MissingDataError
        Betas, a table or pictures are not there.
    InputError
        They do not fit each other.
    """
    clean.choice(zscore, ("session", "none"), "zscore")
    name = clean.pick_subject(subject, subjects(root), root)
    folder = root if name == _ALONE else root / name
    files = _files(folder, deep=name != _ALONE)
    if not files:
        raise MissingDataError(f"{folder} holds no betas; expected ses-01_betas.npy")
    nameless = [path for path in files if not entity(path.name, "ses")]
    if nameless and len(files) > 1:
        raise InputError(
            f"{nameless[0]}: of {len(files)} files of betas this one does not say its session; name it "
            "ses-01_betas, and its table ses-01_events.tsv"
        )
    sessions = number_sessions([entity(path.name, "ses") for path in files])
    files.sort(key=lambda path: (sessions[entity(path.name, "ses")], path.name))
    values, trials, warnings, read = list[np.ndarray](), list[Trial](), list[str](), dict[str, Path]()
    for path in files:
        table = path.with_name(path.stem.removesuffix(_NAME) + "events.tsv")
        rows = read_trials(table, sessions[entity(path.name, "ses")])
        values.append(_matrix(path, len(rows), values[0].shape[1] if values else None))
        warnings += out_of_order(rows, str(table))
        other = read.setdefault(fingerprint(None, [values[-1]]), path)
        if other != path:
            raise InputError(f"{other} and {path} hold the same values: one is a copy; remove it")
        trials += rows
    betas = np.concatenate(values)
    about = describe(root)
    return several_sessions(
        "arrays",
        name,
        root,
        folder,
        betas,
        trials,
        warnings,
        nan=nan,
        zscore=zscore,
        range=range,
        about=about,
        xyz=np.full((betas.shape[1], 3), np.nan, np.float32),
    )


def _files(folder: Path, deep: bool) -> list[Path]:
    found = folder.rglob(f"*{_NAME}.*") if deep else folder.glob(f"*{_NAME}.*")
    files = visible(path for path in found if path.suffix.lower() in ENDINGS)
    clean.each_once(((str(path.with_suffix("")), path.name) for path in files), "betas")
    return files


def _matrix(path: Path, n_trials: int, n_voxels: int | None) -> np.ndarray:
    """Read one matrix, a row a trial; which axis is which is never guessed."""
    ending = path.suffix.lower()
    if ending == ".npy":
        found = read_npy(path)
    elif ending == ".mat":
        found = read_mat(path, (_NAME,), ())[_NAME]
    else:
        found = _hdf5(path)
    if found.ndim != 2 or found.dtype.kind not in "buif" or found.size == 0:
        raise InputError(
            f"{path}: betas are {found.dtype} of shape {found.shape}; allowed: a matrix of numbers, "
            "a row a trial"
        )
    if found.shape[0] != n_trials:
        turned = "; its columns are as many: transpose it" if found.shape[1] == n_trials else ""
        raise InputError(
            f"{path} has {found.shape[0]} rows and its events {n_trials}; one row a trial is needed{turned}"
        )
    if n_voxels not in (None, found.shape[1]):
        raise InputError(
            f"{path} has {found.shape[1]} voxels and files before it {n_voxels}; sessions must have the same"
        )
    return found


def _hdf5(path: Path) -> np.ndarray:
    """Read the matrix of an HDF5 file; what MATLAB wrote (7.3) lies transposed."""
    import h5py

    check_content(path)
    if not h5py.is_hdf5(path):
        raise InputError(f"{path} is no HDF5 file, or cut short; write it again")
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get(_NAME), h5py.Dataset):
                names = ", ".join(name for name in file if not name.startswith("#")) or "nothing"
                raise InputError(f"{path}: dataset {_NAME!r} is missing; found: {names}")
            if "MATLAB_class" in file[_NAME].attrs:
                return read_mat(path, (_NAME,), ())[_NAME]
            return np.asarray(file[_NAME])
    except InputError:
        raise
    except Exception as error:  # h5py raises a dozen kinds on a damaged file
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); cut short? copy it again"
        ) from error
