"""Any .mat file of the form fmriTrn fmriTest stimTrn stimTest (labelTrn labelTest)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean, ranges
from brainit.datasets.files.presence import check_content, there, visible
from brainit.datasets.sessions import one_session
from brainit.errors import InputError, MissingDataError
from brainit.io import hash_file
from brainit.subject import Subject

_NEEDED = ("fmriTrn", "fmriTest", "stimTrn", "stimTest")
_LABELS = ("labelTrn", "labelTest")
_LARGEST = 2**53  # of a whole number that a double holds
_NUMERIC = ("double", "single", "logical", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))


def read_mat(
    path: Path, needed: Sequence[str] = _NEEDED, optional: Sequence[str] = _LABELS
) -> dict[str, np.ndarray]:
    """Read variables, by default those of the form; other variables of the file are not opened.

    Parameters
    ----------
    path : Path
        MATLAB 5 to 7.2 (scipy) or 7.3 (HDF5).
    needed, optional : sequence of str
        Names of variables.

    Returns
    -------
    dict of str to array of shape (n_trials, n_columns)

    Raises
    ------
    InputError
        The file cannot be read, a variable is missing, or is not a numeric matrix.
    """
    import h5py
    import scipy.io

    check_content(path)
    if path.suffix == ".npy":
        raise InputError(f"{path} is no .mat file; the dataset 'arrays' reads folders of .npy matrices")
    wanted = [*needed, *optional]
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                # MATLAB stores columns first, so HDF5 shows every matrix transposed
                found = {k: np.asarray(file[k]).T for k in wanted if k in file and _numeric(path, k, file[k])}
                names = [k for k in file if not k.startswith("#")]
        else:
            names = [name for name, _, _ in scipy.io.whosmat(path)]
            found = scipy.io.loadmat(path, variable_names=wanted)
    except InputError:
        raise
    except Exception as error:  # scipy and h5py raise a dozen kinds on a damaged file
        raise InputError(
            f"{path} cannot be read as a .mat file ({type(error).__name__}); cut short? copy it again"
        ) from error
    missing = [k for k in needed if k not in found]
    if missing:
        raise InputError(
            f"{path}: variable {', '.join(missing)} is missing; found: {', '.join(names) or 'none'}; "
            f"needed: {', '.join(needed)}"
        )
    out = {k: np.asarray(found[k]) for k in wanted if k in found}
    for key, value in out.items():
        if value.dtype.kind not in "buif" or value.ndim != 2 or value.size == 0:
            raise InputError(
                f"{path}: {key} is {value.dtype} of shape {value.shape}; allowed: a matrix, one row a trial"
            )
    return out


def _numeric(path: Path, name: str, stored: Any) -> bool:
    """Refuse what MATLAB did not store as a matrix of numbers: only its mark says how it lies in the file."""
    mark = stored.attrs.get("MATLAB_class")
    if mark is None:
        raise InputError(
            f"{path}: {name} was not written by MATLAB (no MATLAB_class), so it is not known whether trials "
            "are its rows or columns; save it with scipy.io.savemat"
        )
    kind = mark.decode() if isinstance(mark, bytes) else str(mark)
    if kind not in _NUMERIC or "MATLAB_empty" in stored.attrs or "MATLAB_sparse" in stored.attrs:
        what = (
            "empty"
            if "MATLAB_empty" in stored.attrs
            else "sparse"
            if "MATLAB_sparse" in stored.attrs
            else kind
        )
        raise InputError(f"{path}: {name} is {what}; allowed: a full matrix of numbers, one row a trial")
    return True


def pictures(images: np.ndarray, where: str, order: str = "F") -> np.ndarray:
    """Reshape rows of pixels to upright square pictures.

    Parameters
    ----------
    images : float32 array of shape (n, side * side)
        In 0..1.
    where : str
        Name for messages.
    order : {"F", "C"}
        Pixels stored column by column (MATLAB) or row by row.

    Returns
    -------
    float32 array of shape (n, side, side)
    """
    clean.choice(order, ("F", "C"), "order")
    side = isqrt(images.shape[1])
    if side * side != images.shape[1]:
        raise InputError(
            f"{where}: a picture has {images.shape[1]} pixels; allowed: a square number, such as 784"
        )
    images = images.reshape(-1, side, side)
    return np.ascontiguousarray(images.transpose(0, 2, 1) if order == "F" else images)


def subjects(root: Path) -> list[str]:
    """Return the one subject: a .mat file holds no more."""
    find_file(root)
    return ["S1"]


def find_file(root: Path, name: str | None = None) -> Path:
    """Return the .mat file: ``root`` itself, ``root/name``, or the only one in ``root``."""
    if there(root):
        return root
    if name is not None:
        found = [root / name] if there(root / name) else []
    else:
        found = visible(root.glob("*.mat"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise MissingDataError(f"{root} holds no {name or '.mat file'}; give the file itself as root")
    raise InputError(
        f"{root} holds {len(found)} .mat files; give one of them as root: {', '.join(f.name for f in found)}"
    )


def load(root: Path, subject: str | None = None, **options: Any) -> Subject:
    """Read a .mat file as a Subject; positions are unknown, so ``xyz`` is NaN."""
    clean.pick_subject(subject, ["S1"], root)
    return load_file(find_file(root), **options)


def load_file(
    path: Path,
    *,
    dataset: str = "mat",
    nan: str = "error",
    zscore: str = "none",
    order: str = "F",
    range: str = "auto",
    label_names: Mapping[int, str] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Subject:
    """Read one .mat file of the form.

    Parameters
    ----------
    path : Path
    dataset : str
        Name that the subject carries.
    nan : {"error", "drop"}
    zscore : {"none", "train"}
    order : {"F", "C"}
        How the pictures' pixels are stored.
    range : str
        Values of black and white, ``"LOW..HIGH"``; ``"auto"``: by type.
    label_names : mapping of int to str, optional
        Names of label codes; default the code itself.
    info : mapping, optional
        Added to the subject's ``info``.

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        The file is damaged or its parts do not fit each other.
    """
    clean.choice(zscore, ("none", "train"), "zscore")
    parts = read_mat(path)
    _same(path, parts, "fmriTrn", "fmriTest", axis=1)
    _same(path, parts, "stimTrn", "stimTest", axis=1)
    for end in ("Trn", "Test"):
        _same(path, parts, f"fmri{end}", f"stim{end}", axis=0)
    labels, notes = None, []
    if any(k in parts for k in _LABELS) and not all(k in parts for k in _LABELS):
        notes.append(f"{path}: only one of {' and '.join(_LABELS)} is there, so labels are left out")
    if all(k in parts for k in _LABELS):
        codes = [
            _codes(path, parts, k, parts[f"fmri{end}"].shape[0])
            for k, end in zip(_LABELS, ("Trn", "Test"), strict=True)
        ]
        labels = np.array([(label_names or {}).get(c, str(c)) for c in np.concatenate(codes).tolist()])
    betas = np.concatenate([parts["fmriTrn"], parts["fmriTest"]]).astype(np.float64)
    n_train, n_trials = len(parts["fmriTrn"]), len(betas)
    if n_train < 2:
        raise InputError(f"{path}: fmriTrn has {n_train} trial; at least 2 are needed to learn anything")
    train = np.arange(n_trials) < n_train
    keep, warnings = clean.usable_voxels(betas, train, nan, str(path))
    betas = betas[:, keep].astype(np.float32)
    if zscore == "train":
        betas = clean.zscore(betas, np.zeros(n_trials), train)
    unit, clipped = ranges.to_unit({k: parts[k] for k in ("stimTrn", "stimTest")}, str(path), range)
    images = pictures(np.concatenate(unit), str(path), order)
    return one_session(
        dataset,
        betas,
        images,
        train,
        labels=labels,
        info={
            "file": path.name,
            "sha256": hash_file(path),
            "units": "z-scored by training trials" if zscore == "train" else "as in the file",
            "warnings": [*notes, *warnings, *clipped],
            **(info or {}),
        },
    )


def _same(path: Path, parts: Mapping[str, np.ndarray], one: str, other: str, axis: int) -> None:
    a, b = parts[one].shape[axis], parts[other].shape[axis]
    if a != b:
        what = ("rows (trials)", "columns")[axis]
        raise InputError(f"{path}: {one} has {a} {what} and {other} has {b}; they must be equal")


def _codes(path: Path, parts: Mapping[str, np.ndarray], key: str, n_trials: int) -> np.ndarray:
    codes = parts[key].ravel()
    if codes.size != n_trials:
        raise InputError(f"{path}: {key} has {codes.size} labels for {n_trials} trials; they must be equal")
    whole = np.isfinite(codes) & (np.abs(codes.astype(np.float64)) < _LARGEST)
    whole[whole] = codes[whole] % 1 == 0
    if not whole.all():
        odd = codes[~whole][0]
        raise InputError(f"{path}: {key} holds {odd:g}; allowed: whole numbers, one code a category")
    return codes.astype(np.int64)
