"""The pictures that subjects were shown: by name, kept as 8 bits, all of one size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean, ranges
from brainit.datasets.files.npz import read_npz
from brainit.datasets.files.picture import ENDINGS, read_picture
from brainit.datasets.files.presence import there, visible
from brainit.errors import InputError, MissingDataError


class Pictures(Mapping[str, np.ndarray]):
    """Pictures by name, kept as 8-bit and given as float32 in 0..1.

    Parameters
    ----------
    ids : array of str of shape (n,)
    images : uint8 array of shape (n, H, W) or (n, H, W, 3)
    where : str
        Name for messages.
    warnings : sequence of str
        What a reader noticed.

    Raises
    ------
    InputError
        A name is there twice, or there are more names than pictures or fewer.
    """

    def __init__(
        self, ids: Any, images: np.ndarray, where: str = "the stimuli", warnings: Sequence[str] = ()
    ) -> None:
        if np.ndim(ids) != 1:
            raise InputError(f"{where}: names of shape {np.shape(ids)}; allowed: a list, one a picture")
        if len(ids) != len(images):
            raise InputError(f"{where}: {len(ids)} names for {len(images)} pictures; they must be equal")
        rows = ((clean.as_name(name), f"row {k}") for k, name in enumerate(ids))
        self._row = {name: k for k, name in enumerate(clean.each_once(rows, f"{where}: stimulus"))}
        self._images = images
        self.warnings = list(warnings)

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
        return Pictures(names, self._images[[self._row[name] for name in names]], where, self.warnings)


def read_stimuli(folder: Path, stated: str = "auto") -> Pictures:
    """Read a stimulus folder: ``stimuli.npz`` (``ids``, ``images``), or one picture file a stimulus.

    Parameters
    ----------
    folder : Path
    stated : str
        Range of the values in ``stimuli.npz``, as ``ranges.to_unit`` takes it; where it is ``"auto"`` an
        array ``range`` of two numbers in the file says it. Picture files say their range themselves.

    Raises
    ------
    MissingDataError
        The folder holds neither.
    InputError
        A file is damaged, names collide, the pictures' sizes differ, or their range is not known.
    """
    packed = folder / "stimuli.npz"
    files = visible(p for p in folder.rglob("*") if p.suffix.lower() in ENDINGS)
    if there(packed):
        if files:
            raise InputError(
                f"{folder} holds stimuli.npz and {len(files)} picture files (first: {files[0].name}); keep "
                "one form"
            )
        return _packed(packed, stated)
    if not files:
        raise MissingDataError(f"{folder} holds no pictures; allowed endings: {', '.join(ENDINGS)}")
    ranges.parse(stated)
    names = clean.each_once(
        ((clean.as_name(path.stem), str(path.relative_to(folder))) for path in files), f"{folder}: stimulus"
    )
    images = [read_picture(path, str(path)) for path in files]
    sizes = {image.shape[:2]: path for image, path in zip(images, files, strict=True)}
    if len(sizes) > 1:
        some = " and ".join(f"{h}x{w} ({path.name})" for (h, w), path in list(sizes.items())[:2])
        raise InputError(f"{folder}: pictures of {len(sizes)} sizes, such as {some}; one size is needed")
    dark = ranges.dark_files(images, str(folder))
    grey = sum(image.ndim == 2 for image in images)
    if 0 < grey < len(images):
        images = [image if image.ndim == 3 else np.stack([image] * 3, -1) for image in images]
        mixed = [
            f"{folder}: {grey} of {len(images)} pictures are grey, the others colour; all read as colour"
        ]
        return Pictures(list(names), np.stack(images), str(folder), [*mixed, *dark])
    return Pictures(list(names), np.stack(images), str(folder), dark)


def _packed(path: Path, stated: str) -> Pictures:
    found = read_npz(path, ("ids", "images"), ("range",))
    said = found.get("range")
    if said is not None and stated == "auto":
        if said.size != 2 or said.dtype.kind not in "buif":
            raise InputError(
                f"{path}: array 'range' is {said.dtype} of shape {said.shape}; allowed: two numbers"
            )
        stated = "..".join(f"{value:g}" for value in said.ravel().tolist())
    images = check_stack(found["images"], str(path))
    if (
        images.dtype == np.uint8
        and ranges.parse(stated) in (None, (0.0, 255.0))
        and images.max(initial=0) > 1
    ):
        return Pictures(found["ids"], images, str(path))  # already what is kept
    (unit,), warnings = ranges.to_unit({"images": images}, str(path), stated)
    return Pictures(found["ids"], ranges.to_codes(unit), str(path), warnings)


def check_stack(images: np.ndarray, where: str) -> np.ndarray:
    """Return a stack of pictures of shape (n, H, W) or (n, H, W, 3); refuse any other shape."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3) or 0 in images.shape:
        raise InputError(f"{where}: pictures of shape {images.shape}; allowed: (n, H, W) or (n, H, W, 3)")
    return images
