"""Files that are whole or not there: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quant.io import TEMPORARY, hash_file, replacing, sort_metadata, write_text

__all__ = [
    "hash_file", "plain", "read_npz", "replacing", "sort_metadata", "sweep", "write_json", "write_npz",
    "write_text",
]  # fmt: skip


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
