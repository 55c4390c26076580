"""Read NIfTI images and masks, and say in one line what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files.clean import each_once
from brainit.datasets.files.geometry import odd_header, same_grid, space_code, too_many_dimensions
from brainit.datasets.files.presence import check_content, visible
from brainit.errors import InputError, MissingDataError

ENDINGS = (".nii.gz", ".nii")


def find(folder: Path, stem: str, deep: bool = False) -> list[Path]:
    """List NIfTI files by the pattern of their name without its ending, ``.nii.gz`` and ``.nii`` alike.

    Raises
    ------
    InputError
        The same file is there with both endings.
    """
    search = folder.rglob if deep else folder.glob
    found = visible(path for ending in ENDINGS for path in search(stem + ending))
    each_once(((bare(path), path.name) for path in found), f"{folder}: image")
    return found


def only(folder: Path, stem: str) -> Path | None:
    """Return the one NIfTI file of a name (a pattern without the ending), or None; several are refused."""
    found = find(folder, stem)
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise InputError(f"{folder} holds {len(found)} files {stem}.nii.gz; one is allowed: {names}")
    return found[0] if found else None


def one(folder: Path, stem: str, says: str) -> Path:
    """Return the one NIfTI file of a name; ``says`` is what it is needed for.

    Raises
    ------
    MissingDataError
        There is none.
    InputError
        There are several.
    """
    found = only(folder, stem)
    if found is None:
        raise MissingDataError(f"{folder} holds no {stem}.nii.gz; it says {says}")
    return found


def bare(path: Path) -> str:
    """Return a NIfTI file's path without its ending."""
    return str(path).removesuffix(".gz").removesuffix(".nii")


def open_image(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels.

    Raises
    ------
    MissingDataError
        There is no such file, or only a pointer to it.
    InputError
        It is not a NIfTI file.
    """
    import nibabel

    check_content(path)
    try:
        return nibabel.load(path)
    except Exception as error:  # nibabel passes on what gzip, zlib and struct raise
        raise _damaged(path, error) from error


def read_voxels(image: Any, inside: np.ndarray, path: Path) -> np.ndarray:
    """Read the values of an image inside a mask.

    Parameters
    ----------
    image : nibabel image of shape (X, Y, Z) or (X, Y, Z, n)
    inside : bool array of shape (X, Y, Z)
    path : Path
        For messages.

    Returns
    -------
    float32 array of shape (n, n_voxels), or (n_voxels,) for a 3D image
        Voxels in C order of the mask.
    """
    if image.shape[:3] != inside.shape:
        raise InputError(
            f"{path} has grid {image.shape[:3]} and its mask {inside.shape}; they must be equal: resample one"
        )
    if len(image.shape) > 4:
        raise too_many_dimensions(image, path)
    data = _whole(image, path)
    return np.ascontiguousarray(data[inside].T).astype(np.float32)


def read_mask(
    path: Path, like: Any | None = None, like_path: Path | None = None
) -> tuple[np.ndarray, Any, list[str]]:
    """Read a mask: every voxel other than 0 is inside.

    Parameters
    ----------
    path : Path
    like : nibabel image, optional
        The mask must lie on this image's grid.
    like_path : Path, optional
        Where ``like`` was read, for messages.

    Returns
    -------
    inside : bool array of shape (X, Y, Z)
    image : nibabel.Nifti1Image
        The mask as uint8.
    warnings : list of str
        NaN, or values other than 0 and one other.

    Raises
    ------
    InputError
        The mask is empty, not 3D, or on another grid.
    """
    image = open_image(path)
    shape = image.shape[:3] if len(image.shape) == 4 and image.shape[3] == 1 else image.shape
    if len(shape) != 3:
        raise InputError(f"{path} has shape {image.shape}; a mask must be 3D")
    if like is not None:
        same_grid(image, path, like, like_path or Path("the data"))
    warnings = odd_header(image, path)
    values = _whole(image, path).reshape(shape)
    empty = np.isnan(values) if values.dtype.kind == "f" else np.zeros(shape, bool)
    if empty.any():
        warnings.append(
            f"{path}: {int(empty.sum())} of {empty.size} voxels are NaN and count as outside the mask"
        )
    inside = ~empty & (values != 0)
    if not inside.any():
        raise InputError(
            f"{path} is empty: none of its {inside.size} voxels is set; give a mask with voxels inside"
        )
    levels = np.unique(values[inside])
    if len(levels) > 1:
        warnings.append(
            f"{path}: holds {len(levels)} values beside 0 ({levels[0]:.3g} to {levels[-1]:.3g}); every voxel "
            "other than 0 counts as inside"
        )
    return inside, as_mask(inside, image), warnings


def as_mask(inside: np.ndarray, like: Any) -> Any:
    """Return a mask (X, Y, Z) as an image on the grid of another, in the space that its header names."""
    import nibabel

    made = nibabel.Nifti1Image(inside.astype(np.uint8), like.affine)
    made.set_sform(like.affine, space_code(like))
    return made


def places(inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centres in mm of the voxels inside a mask, in its C order: float32 (n_voxels, 3)."""
    from nibabel.affines import apply_affine

    return apply_affine(affine, np.argwhere(inside)).astype(np.float32)


def _whole(image: Any, path: Path) -> np.ndarray:
    """Read all voxels; a gzip stream is read to its end, because only there its checksum is compared."""
    import gzip

    if image.get_data_dtype().kind not in "buif":
        raise InputError(
            f"{path} holds values of type {image.get_data_dtype()}; allowed: one real number a voxel"
        )
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                image = type(image).from_bytes(stream.read())
        return np.asanyarray(image.dataobj)
    except MemoryError:
        raise
    except Exception as error:  # a cut or damaged file shows here in a dozen ways
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    kind = type(error).__name__
    return InputError(f"{path} cannot be read as NIfTI ({kind}); it is damaged or cut short: copy it again")
