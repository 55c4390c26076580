"""Read arrays from .npz and .npy files without ever opening a pickle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files.presence import check_content
from brainit.errors import InputError

_LAST = 0x10FFFF  # of Unicode


def read_npz(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file by name.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        It is damaged, an array is missing, there twice, or needs pickle.
    """
    check_content(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            missing = [k for k in needed if k not in names]
            if missing:
                raise InputError(f"{path}: array {missing[0]!r} is missing; found: {', '.join(names)}")
            if len(set(names)) < len(names):
                raise InputError(
                    f"{path}: an array is there twice ({', '.join(sorted(names))}); save it again"
                )
            return {k: _sound(file[k]) for k in (*needed, *optional) if k in names}
    except InputError:
        raise
    except Exception as error:  # numpy passes on what zipfile, zlib and its own header parser raise
        raise unreadable(path, error) from error


def read_npy(path: Path) -> np.ndarray:
    """Read the array of an .npy file.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        It is damaged or needs pickle.
    """
    check_content(path)
    try:
        found = _sound(np.load(path, allow_pickle=False))
    except Exception as error:  # as above
        raise unreadable(path, error) from error
    if not isinstance(found, np.ndarray):
        raise InputError(f"{path} holds several arrays; one (.npy) is expected")
    return found


def _sound(array: Any) -> Any:
    """Refuse (ValueError) text that holds no characters: damage that numpy does not see."""
    if isinstance(array, np.ndarray) and array.dtype.kind == "U" and array.size:
        points = np.ascontiguousarray(array).view(array.dtype.byteorder.replace("|", "=") + "u4")
        if points.max() > _LAST or ((points >= 0xD800) & (points < 0xE000)).any():
            raise ValueError("text of no characters")
    return array


def unreadable(path: Path, error: Exception) -> InputError:
    """Say why a file of arrays cannot be read."""
    pickled = "pickle" in str(error).lower()
    why = "it holds pickled objects, which are not opened" if pickled else "it is damaged or cut short"
    return InputError(f"{path} cannot be read: {why}; write plain arrays with numpy.savez")
