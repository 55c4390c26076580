"""Draw pictures from a folder, a parquet file, an .npz or an array, all as 8-bit colour of one size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import ranges
from brainit.datasets.files.npz import read_npz
from brainit.datasets.files.picture import ENDINGS, read_picture
from brainit.datasets.files.presence import check_content, visible
from brainit.datasets.files.stimuli import check_stack
from brainit.errors import InputError, MissingDataError

_ASK = "save them as uint8 in 0..255, or as floats in 0..1"


def count(path: Path) -> int:
    """Count the pictures of a folder, parquet file or ``.npz``, as `draw` finds them; none is decoded.

    Raises
    ------
    InputError
        The file is damaged.
    MissingDataError
        There are none.
    """
    if path.suffix == ".npz" and path.is_file():
        return len(read_npz(path, ("images",))["images"])
    if parquet := _parquet(path):
        import pyarrow
        import pyarrow.parquet

        try:
            return sum(pyarrow.parquet.read_metadata(file).num_rows for file in parquet)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as parquet; it is damaged or cut short") from error
    return len(_files(path))


def draw(source: Any, n: int, seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``n`` different pictures at random from a folder, parquet file, ``.npz`` or array.

    Parameters
    ----------
    source : path or array of shape (m, H, W) or (m, H, W, 3)
        A folder of pictures (its subfolders' names are the labels) or of parquet files; a parquet file with
        column ``image`` (encoded bytes) and optionally ``label_name`` or ``label``; an ``.npz``
        with ``images``.
    n, seed, side : int
        Pictures are cut to a centred square and resized to ``side``.

    Returns
    -------
    images : uint8 array of shape (n, side, side, 3)
    labels : str array of shape (n,)

    Raises
    ------
    InputError
        There are fewer than ``n`` pictures, or one cannot be read.
    MissingDataError
        There are none.
    """
    rng = np.random.default_rng(seed)
    if isinstance(source, np.ndarray):
        return _from_array(source, np.full(len(source), "picture"), n, rng, side, "the array of pictures")
    path = Path(source).expanduser()
    if path.suffix == ".npz" and path.is_file():
        images = read_npz(path, ("images",))["images"]
        return _from_array(images, np.full(len(images), "picture"), n, rng, side, str(path))
    if parquet := _parquet(path):
        return _from_parquet(parquet, n, rng, side)
    files = _files(path)
    chosen = [files[k] for k in _choose(len(files), n, rng, str(path))]
    return np.stack([_square(read_picture(f, str(f)), side) for f in chosen]), np.array(
        [f.parent.name for f in chosen]
    )


def _parquet(path: Path) -> list[Path]:
    if path.suffix == ".parquet":
        return [path]
    return visible(path.glob("*.parquet")) if path.is_dir() else []


def _choose(have: int, n: int, rng: np.random.Generator, where: str) -> np.ndarray:
    if have < n:
        raise InputError(
            f"{where} holds {have} pictures and {n} are needed; add pictures or use a smaller preset"
        )
    return rng.permutation(have)[:n]


def _from_array(
    images: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator, side: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    rows = _choose(len(images), n, rng, where)
    (unit,), _ = ranges.to_unit({"images": check_stack(images, where)}, where, ask=_ASK)
    return np.stack([_square(c, side) for c in ranges.to_codes(unit[rows])]), labels[rows]


def _from_parquet(
    paths: list[Path], n: int, rng: np.random.Generator, side: int
) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    tables = []
    for path in paths:
        check_content(path, "give a parquet file of pictures")
        try:
            names = pyarrow.parquet.read_schema(path).names
            if "image" not in names:
                raise InputError(f"{path}: column 'image' is missing; found: {', '.join(names)}")
            label = next((k for k in ("label_name", "label") if k in names), None)
            table = pyarrow.parquet.read_table(path, columns=["image", *([label] if label else [])])
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"{path} cannot be read as parquet; it is damaged or cut short: copy it again"
            ) from error
        labels = [str(v) for v in table[label].to_pylist()] if label else ["picture"] * len(table)
        tables.append((table["image"], labels))
    offsets = np.cumsum([0, *(len(column) for column, _ in tables)])
    images, names = [], []
    for row in _choose(int(offsets[-1]), n, rng, str(paths[0].parent)).tolist():
        part = int(np.searchsorted(offsets, row, side="right")) - 1
        value = tables[part][0][row - int(offsets[part])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise InputError(
                f"{paths[part]}: column 'image' holds {type(data).__name__}; allowed: encoded bytes"
            )
        where = f"{paths[part]} row {row - int(offsets[part])}"
        images.append(_square(read_picture(io.BytesIO(data), where), side))
        names.append(tables[part][1][row - int(offsets[part])])
    return np.stack(images), np.array(names)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        why = "is neither" if folder.exists() else "does not exist"
        raise MissingDataError(f"{folder} {why}; give a folder of pictures, a parquet file or an .npz")
    files = visible(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)
    if not files:
        raise MissingDataError(
            f"{folder} holds no pictures; allowed endings: {', '.join(ENDINGS)}, or *.parquet"
        )
    return files


def _square(picture: np.ndarray, side: int) -> np.ndarray:
    """Cut a picture to a centred square of ``side`` and make it colour."""
    from PIL import Image, ImageOps

    image = Image.fromarray(picture).convert("RGB")
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
