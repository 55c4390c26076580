"""The two layouts of haxby2001: the small copy with a folder a run, and nilearn's download."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean, geometry, volumes
from brainit.datasets.files.events import Event, read_events
from brainit.datasets.files.presence import there, visible
from brainit.datasets.files.text import read_text
from brainit.errors import InputError, MissingDataError
from brainit.io import fingerprint

CATEGORIES = ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")
_RUN = re.compile(r"task\d+_run(\d+)$")
_NILEARN_TR = 2.5
_NILEARN_MASKS = {
    "vt": "mask4_vt.nii.gz",
    "face": "mask8_face_vt.nii.gz",
    "house": "mask8_house_vt.nii.gz",
}


@dataclass(frozen=True)
class Run:
    """One run: its number, BOLD of shape (n_volumes, n_voxels) and what was shown."""

    number: int
    series: np.ndarray
    events: list[Event]


@dataclass(frozen=True)
class Recording:
    """All runs of a subject inside one mask."""

    runs: list[Run]
    repetition_time: float
    xyz: np.ndarray
    mask: Any
    image: str
    mask_name: str
    roi: Mapping[str, np.ndarray]
    warnings: list[str] = field(default_factory=list)


def subject_folders(root: Path) -> list[Path]:
    """Return the subject folders of either layout, sorted."""
    inner = root / "haxby2001"
    base = inner if inner.is_dir() else root
    found = visible(
        p for p in base.glob("sub*") if p.is_dir() and (run_folders(p) or there(p / "bold.nii.gz"))
    )
    if not found:
        raise MissingDataError(
            f"{root} holds no haxby2001 subject; expected sub001/task001_run001/bold_*.nii.gz, or "
            f"subj2/bold.nii.gz as nilearn downloads it (brainlab data fetch haxby2001)"
        )
    return found


def run_folders(folder: Path) -> dict[int, Path]:
    """Return the run folders of the small copy by run number; two of one number are refused."""
    found = [
        (int(m[1]), p) for p in visible(folder.glob("task*_run*")) if (m := _RUN.match(p.name)) and p.is_dir()
    ]
    clean.each_once(((str(n), p.name) for n, p in found), f"{folder}: run")
    return dict(sorted(found))


def run_numbers(folder: Path) -> list[int]:
    """Return the numbers of the runs that are there, from 1."""
    if not there(folder / "bold.nii.gz"):
        return list(run_folders(folder))
    return sorted(set(_labels(folder)[1].tolist()))


def read(folder: Path, image: str, mask: str, repetition_time: float | None = None) -> Recording:
    """Read all runs of a subject, whichever layout its folder has.

    ``repetition_time`` in seconds takes the place of what the headers state.
    """
    if there(folder / "bold.nii.gz"):
        return _read_nilearn(folder, mask, repetition_time)
    return _read_small(folder, image, mask, repetition_time)


def _read_small(folder: Path, image: str, mask: str, stated: float | None) -> Recording:
    clean.choice(image, ("auto", "1slice", "25mm"), "image")
    runs = run_folders(folder)
    first = next(iter(runs.values()))
    if image == "auto":
        image = "1slice" if there(first / "bold_1slice.nii.gz") else "25mm"
    paths = {n: p / f"bold_{image}.nii.gz" for n, p in runs.items()}
    opened = {n: volumes.open_image(p) for n, p in paths.items()}
    one, one_path = next(iter(opened.values())), next(iter(paths.values()))
    warnings = []
    for n, other in opened.items():
        geometry.same_series(one, one_path, other, paths[n])
        if len(other.shape) != 4:
            raise InputError(f"{paths[n]} has shape {other.shape}; expected 4D, one volume a repetition time")
        warnings += geometry.odd_header(other, paths[n])
    masks = {Path(volumes.bare(p)).name: p for p in volumes.find(folder / "masks" / image, "*")}
    if mask == "auto":
        mask = "brain" if "brain" in masks else "bold"
    inside, mask_image, odd = _mask(mask, masks, one, one_path)
    seconds = geometry.repetition_time(one, one_path, stated)
    warnings += geometry.overruled_time(one, one_path, stated)
    recorded, known = [], dict[str, Path]()
    for n, path in paths.items():
        events = read_events(runs[n] / "bold_events.tsv", CATEGORIES)
        series = volumes.read_voxels(opened[n], inside, path)
        other = known.setdefault(fingerprint(None, [series]), path)
        if other != path:
            raise InputError(
                f"{other} and {path} hold the same values: one is a copy; remove its run's folder"
            )
        recorded.append(Run(n, series, events))
    xyz = volumes.places(inside, one.affine)
    roi = _roi(masks, inside, one, one_path, warnings)
    return Recording(recorded, seconds, xyz, mask_image, image, mask, roi, [*warnings, *odd])


def _read_nilearn(folder: Path, mask: str, stated: float | None) -> Recording:
    path = folder / "bold.nii.gz"
    bold = volumes.open_image(path)
    names, chunks = _labels(folder)
    if len(bold.shape) != 4 or bold.shape[3] != len(names):
        raise InputError(
            f"{path} has shape {bold.shape} and labels.txt {len(names)} rows; one row a volume is needed"
        )
    seconds = _nilearn_time(bold, path, stated)
    masks = {k: folder / v for k, v in _NILEARN_MASKS.items() if there(folder / v)}
    if there(folder.parent / "mask.nii.gz"):
        masks["brain"] = folder.parent / "mask.nii.gz"
    if mask == "auto":
        mask = "vt" if "vt" in masks else "bold"
    inside, mask_image, warnings = _mask(mask, masks, bold, path)
    warnings += geometry.odd_header(bold, path)
    warnings += geometry.overruled_time(bold, path, stated)
    series = volumes.read_voxels(bold, inside, path)
    recorded = []
    for number in sorted(set(chunks.tolist())):
        here = chunks == number
        events = _blocks(names[here], seconds)
        if events:
            recorded.append(Run(number, series[here], events))
        else:  # run 8 of subject 5 is known to have none
            warnings.append(f"{folder.name}: run {number} has no labels and was left out")
    xyz = volumes.places(inside, bold.affine)
    roi = _roi(masks, inside, bold, path, warnings)
    return Recording(recorded, seconds, xyz, mask_image, path.name, mask, roi, warnings)


def _nilearn_time(bold: Any, path: Path, stated: float | None) -> float:
    """Seconds between volumes: as given, as the header states, or as published where it states no unit."""
    try:
        seconds = geometry.repetition_time(bold, path, stated)
    except InputError as error:
        if "without a unit" not in str(error):
            raise
        return _NILEARN_TR
    if stated is None and abs(seconds - _NILEARN_TR) > 1e-3:
        raise InputError(
            f"{path}: its header states a repetition time of {seconds:g} s and the publication "
            f"{_NILEARN_TR:g} s; say which: repetition_time=SECONDS (--set options.repetition_time=2.5)"
        )
    return seconds


def _labels(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ``labels.txt``: category of each volume, and its run from 1."""
    path = folder / "labels.txt"
    text = read_text(path, "it says what was shown when (brainlab data fetch haxby2001)")
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    if not rows or any(len(row) != 2 or not row[1].isdigit() for row in rows):
        raise InputError(f"{path}: expected a header and rows of a label and a run number")
    unknown = sorted({row[0] for row in rows} - {*CATEGORIES, "rest"})
    if unknown:
        raise InputError(f"{path}: unknown label {unknown[0]!r}; allowed: {', '.join(CATEGORIES)}, rest")
    return np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows]) + 1


def _blocks(names: np.ndarray, seconds: float) -> list[Event]:
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    spans = [(int(a), int(b), str(names[a])) for a, b in pairwise(edges)]
    return [Event(a * seconds, (b - a) * seconds, name) for a, b, name in spans if name != "rest"]


def _mask(
    name: str, masks: Mapping[str, Path], like: Any, like_path: Path
) -> tuple[np.ndarray, Any, list[str]]:
    if name in masks:
        return volumes.read_mask(masks[name], like, like_path)
    if name != "bold":
        raise InputError(
            f"mask {name!r} is not there for {like_path}; allowed: {', '.join([*masks, 'bold'])}"
        )
    everywhere = np.ones(like.shape[:3], bool)
    series = volumes.read_voxels(like, everywhere, like_path)
    unknown = np.isnan(series).all(
        0
    )  # never measured, as NaN outside the brain; some NaN is for the NaN rule
    mean = np.nanmean(np.where(unknown, 0, series), axis=0)
    if not np.isfinite(mean).all():
        raise InputError(f"{like_path} holds infinite values; correct the file")
    # tissue is far brighter than air; a fifth of the bright end separates them on these images
    inside = ~unknown & (mean > 0.2 * np.quantile(mean[~unknown] if not unknown.all() else mean, 0.98))
    warnings = []
    if unknown.any():
        warnings.append(
            f"{like_path}: {int(unknown.sum())} of {unknown.size} voxels are NaN throughout; left out"
        )
    if not inside.any():
        raise InputError(f"{like_path} is dark everywhere; no voxel has signal: check the file")
    grid = inside.reshape(like.shape[:3])
    return grid, volumes.as_mask(grid, like), warnings


def _roi(
    masks: Mapping[str, Path], inside: np.ndarray, like: Any, like_path: Path, warnings: list[str]
) -> dict[str, np.ndarray]:
    out = {}
    for name, path in masks.items():
        other = volumes.open_image(path)
        try:
            geometry.same_grid(other, path, like, like_path)
        except InputError as error:  # a region is for looking at; without it everything else still holds
            warnings.append(f"region {name!r} is left out: {error}")
            continue
        values = volumes.read_voxels(other, inside, path)
        out[name] = np.nan_to_num(values.reshape(-1)) != 0
    return out
