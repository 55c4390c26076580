"""Read NIfTI images and masks, and say in one line what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainit.errors import InputError, MissingDataError


def open_image(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        It is not a NIfTI file.
    """
    import nibabel

    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; copy it there or check the folder's layout")
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
    data = _whole(image, path)
    return np.ascontiguousarray(data[inside].T).astype(np.float32)


def read_mask(path: Path, like: Any | None = None, like_path: Path | None = None) -> tuple[np.ndarray, Any]:
    """Read a mask: every voxel other than 0 is inside.

    Parameters
    ----------
    path : Path
    like : nibabel image, optional
        The mask must lie on this image's grid (same shape, same affine to 1e-3 mm).
    like_path : Path, optional
        Where ``like`` was read, for messages.

    Returns
    -------
    inside : bool array of shape (X, Y, Z)
    image : nibabel.Nifti1Image
        The mask as uint8.

    Raises
    ------
    InputError
        The mask is empty, not 3D, or on another grid.
    """
    import nibabel

    image = open_image(path)
    shape = image.shape[:3] if len(image.shape) == 4 and image.shape[3] == 1 else image.shape
    if len(shape) != 3:
        raise InputError(f"{path} has shape {image.shape}; a mask must be 3D")
    if like is not None:
        same_grid(image, path, like, like_path or Path("the data"))
    inside = np.nan_to_num(_whole(image, path).reshape(shape)) != 0
    if not inside.any():
        raise InputError(
            f"{path} is empty: none of its {inside.size} voxels is set; give a mask with voxels inside"
        )
    return inside, nibabel.Nifti1Image(inside.astype(np.uint8), image.affine)


def same_grid(mask: Any, mask_path: Path, image: Any, image_path: Path) -> None:
    """Raise InputError where a mask and an image do not share shape and affine."""
    if mask.shape[:3] != image.shape[:3]:
        raise InputError(
            f"{mask_path} has grid {mask.shape[:3]} and {image_path} {image.shape[:3]}; "
            f"a mask must lie on the grid of its data: resample it (nilearn.image.resample_to_img)"
        )
    apart = float(np.abs(mask.affine - image.affine).max())
    if apart > 1e-3:
        raise InputError(
            f"{mask_path} and {image_path} have the same shape but affines that differ by {apart:.3g} mm; "
            f"a mask must lie on the grid of its data: resample it (nilearn.image.resample_to_img)"
        )


def places(inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centres in mm of the voxels inside a mask, in its C order: float32 (n_voxels, 3)."""
    from nibabel.affines import apply_affine

    return apply_affine(affine, np.argwhere(inside)).astype(np.float32)


def _whole(image: Any, path: Path) -> np.ndarray:
    """Read all voxels; a gzip stream is read to its end, because only there its checksum is compared."""
    import gzip

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
