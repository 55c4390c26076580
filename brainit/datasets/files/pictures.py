"""Pictures from a folder, a parquet file, an .npz or an array, all as 8-bit arrays of one size."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean
from brainit.errors import InputError, MissingDataError

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Pictures(Mapping[str, np.ndarray]):
    """Pictures by name, kept as 8-bit and given as float32 in 0..1.

    Parameters
    ----------
    ids : array of str of shape (n,)
    images : uint8 array of shape (n, H, W) or (n, H, W, 3)
    """

    def __init__(self, ids: np.ndarray, images: np.ndarray) -> None:
        if len(ids) != len(images):
            raise InputError(f"{len(ids)} names for {len(images)} pictures; they must be equal")
        self._row = {str(name): k for k, name in enumerate(ids)}
        self._images = images

    def __getitem__(self, key: str) -> np.ndarray:
        return self._images[self._row[str(key)]].astype(np.float32) / 255

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def only(self, ids: np.ndarray, where: str) -> Pictures:
        """Return the pictures of these names, each once.

        Raises
        ------
        MissingDataError
            A name has no picture.
        """
        names = list(dict.fromkeys(np.asarray(ids).astype(str).tolist()))
        lost = [name for name in names if name not in self._row]
        if lost:
            raise MissingDataError(
                f"{where}: no picture for {len(lost)} of {len(names)} stimuli (first: {lost[0]})"
            )
        return Pictures(np.array(names), self._images[[self._row[name] for name in names]])


def read_stimuli(folder: Path) -> Pictures:
    """Read a stimulus folder: ``stimuli.npz`` (``ids``, ``images``), or one picture file a stimulus.

    Raises
    ------
    MissingDataError
        The folder holds neither.
    InputError
        A file is damaged, or the pictures' sizes differ.
    """
    packed = folder / "stimuli.npz"
    if packed.is_file():
        ids, images = _read_npz(packed, ("ids", "images"))
        return Pictures(ids, _codes(images, str(packed)))
    files = _files(folder)
    images = [_decode(path, str(path), None) for path in files]
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise InputError(
            f"{folder}: pictures of {len(sizes)} sizes, such as {sorted(sizes)[:2]}; one size is needed"
        )
    return Pictures(np.array([path.stem for path in files]), np.stack(images))


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
        (images,) = _read_npz(path, ("images",))
        return _from_array(images, np.full(len(images), "picture"), n, rng, side, str(path))
    parquet = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet")) if path.is_dir() else []
    if parquet:
        return _from_parquet(parquet, n, rng, side)
    files = _files(path)
    chosen = [files[k] for k in _choose(len(files), n, rng, str(path))]
    return np.stack([_decode(f, str(f), side) for f in chosen]), np.array([f.parent.name for f in chosen])


def _choose(have: int, n: int, rng: np.random.Generator, where: str) -> np.ndarray:
    if have < n:
        raise InputError(
            f"{where} holds {have} pictures and {n} are needed; add pictures or use a smaller preset"
        )
    return rng.permutation(have)[:n]


def _from_array(
    images: np.ndarray, labels: np.ndarray, n: int, rng: np.random.Generator, side: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    rows = _choose(len(images), n, rng, where)
    codes = _codes(images[rows], where)
    return np.stack([_square(Image.fromarray(c), side) for c in codes]), labels[rows]


def _from_parquet(
    paths: list[Path], n: int, rng: np.random.Generator, side: int
) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    tables = []
    for path in paths:
        if not path.is_file():
            raise MissingDataError(f"{path} does not exist; give a parquet file of pictures")
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
        images.append(_decode(io.BytesIO(data), f"{paths[part]} row {row - int(offsets[part])}", side))
        names.append(tables[part][1][row - int(offsets[part])])
    return np.stack(images), np.array(names)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder} does not exist; give a folder of pictures, a parquet file or an .npz"
        )
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _ENDINGS)
    if not files:
        raise MissingDataError(
            f"{folder} holds no pictures; allowed endings: {', '.join(_ENDINGS)}, or *.parquet"
        )
    return files


def _decode(source: Any, where: str, side: int | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            grey = image.mode in ("L", "1", "I;16", "I")
            if side is None:
                return np.asarray(image.convert("L" if grey else "RGB"))
            return _square(image, side)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(
            f"{where} cannot be read as a picture; it is damaged or no picture: remove it"
        ) from error


def _square(image: Any, side: int) -> np.ndarray:
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS))


def _read_npz(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [k for k in names if k not in file]
            if missing:
                raise InputError(f"{path}: array {missing[0]!r} is missing; found: {', '.join(file.files)}")
            return [file[k] for k in names]
    except InputError:
        raise
    except Exception as error:  # numpy passes on what zipfile, zlib and its own header parser raise
        pickled = "pickle" in str(error).lower()
        why = "it holds pickled objects, which are not opened" if pickled else "it is damaged or cut short"
        raise InputError(f"{path} cannot be read: {why}; write plain arrays with numpy.savez") from error


def _codes(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise InputError(f"{where}: pictures of shape {images.shape}; allowed: (n, H, W) or (n, H, W, 3)")
    if images.dtype == np.uint8:
        return images
    return np.rint(clean.unit_range(images, where) * 255).astype(np.uint8)
