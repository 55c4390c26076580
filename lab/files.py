"""Files that are whole or not there: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it on success, remove it on any failure.

    Parameters
    ----------
    path : Path
        The file to appear. Missing parent folders are made.

    Yields
    ------
    Path
        Name to write to; it ends in the same suffix, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{TEMPORARY}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())  # a rename must not overtake the bytes it names
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, so that equal content is equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, default=plain, allow_nan=False) + "\n")


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as compressed npz, without pickle."""
    import numpy as np

    checked = {key: np.asarray(value) for key, value in arrays.items()}
    for key, value in checked.items():
        if value.dtype == object:
            raise TypeError(f"array {key!r} holds Python objects; only plain numbers and text are stored")
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **checked)  # type: ignore[arg-type]


def read_npz(path: Path) -> dict[str, Any]:
    """Read arrays written by `write_npz`."""
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def plain(value: Any) -> Any:
    """Turn numpy scalars, arrays, paths, tuples and sets into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def sweep(folder: Path) -> int:
    """Remove what a killed process left half-written in ``folder``; return how many files went."""
    left = [p for p in folder.rglob(f".*{TEMPORARY}*") if p.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
