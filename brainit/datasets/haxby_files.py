"""The two layouts of haxby2001: the small copy with a folder a run, and nilearn's download."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean, volumes
from brainit.datasets.files.glm import Event, read_events
from brainit.errors import InputError, MissingDataError

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
    found = sorted(
        p for p in base.glob("sub*") if p.is_dir() and (run_folders(p) or (p / "bold.nii.gz").is_file())
    )
    if not found:
        raise MissingDataError(
            f"{root} holds no haxby2001 subject; expected sub001/task001_run001/bold_*.nii.gz, or "
            f"subj2/bold.nii.gz as nilearn downloads it (brainlab data fetch haxby2001)"
        )
    return found


def run_folders(folder: Path) -> dict[int, Path]:
    """Return the run folders of the small copy by run number."""
    found = {int(m[1]): p for p in folder.glob("task*_run*") if (m := _RUN.match(p.name)) and p.is_dir()}
    return dict(sorted(found.items()))


def run_numbers(folder: Path) -> list[int]:
    """Return the numbers of the runs that are there, from 1."""
    if not (folder / "bold.nii.gz").is_file():
        return list(run_folders(folder))
    return sorted(set(_labels(folder)[1].tolist()))


def read(folder: Path, image: str, mask: str) -> Recording:
    """Read all runs of a subject, whichever layout its folder has."""
    if (folder / "bold.nii.gz").is_file():
        return _read_nilearn(folder, mask)
    return _read_small(folder, image, mask)


def _read_small(folder: Path, image: str, mask: str) -> Recording:
    clean.choice(image, ("auto", "1slice", "25mm"), "image")
    runs = run_folders(folder)
    first = next(iter(runs.values()))
    if image == "auto":
        image = "1slice" if (first / "bold_1slice.nii.gz").is_file() else "25mm"
    paths = {n: p / f"bold_{image}.nii.gz" for n, p in runs.items()}
    opened = {n: volumes.open_image(p) for n, p in paths.items()}
    one, one_path = next(iter(opened.values())), next(iter(paths.values()))
    for n, other in opened.items():
        if len(other.shape) != 4 or other.shape[:3] != one.shape[:3]:
            raise InputError(
                f"{paths[n]} has shape {other.shape}; expected 4D on the grid {one.shape[:3]} of {one_path}"
            )
    masks = {p.name.removesuffix(".nii.gz"): p for p in sorted((folder / "masks" / image).glob("*.nii.gz"))}
    if mask == "auto":
        mask = "brain" if "brain" in masks else "bold"
    inside, mask_image = _mask(mask, masks, one, one_path)
    seconds = _repetition_time(one, one_path)
    recorded = []
    for n, path in paths.items():
        events = read_events(runs[n] / "bold_events.tsv", CATEGORIES)
        recorded.append(Run(n, volumes.read_voxels(opened[n], inside, path), events))
    xyz = volumes.places(inside, one.affine)
    return Recording(recorded, seconds, xyz, mask_image, image, mask, _roi(masks, inside, one))


def _read_nilearn(folder: Path, mask: str) -> Recording:
    path = folder / "bold.nii.gz"
    bold = volumes.open_image(path)
    names, chunks = _labels(folder)
    if len(bold.shape) != 4 or bold.shape[3] != len(names):
        raise InputError(
            f"{path} has shape {bold.shape} and labels.txt {len(names)} rows; one row a volume is needed"
        )
    masks = {k: folder / v for k, v in _NILEARN_MASKS.items() if (folder / v).is_file()}
    if (folder.parent / "mask.nii.gz").is_file():
        masks["brain"] = folder.parent / "mask.nii.gz"
    if mask == "auto":
        mask = "vt" if "vt" in masks else "bold"
    inside, mask_image = _mask(mask, masks, bold, path)
    series = volumes.read_voxels(bold, inside, path)
    recorded, warnings = [], []
    for number in sorted(set(chunks.tolist())):
        here = chunks == number
        events = _blocks(names[here])
        if events:
            recorded.append(Run(number, series[here], events))
        else:  # run 8 of subject 5 is known to have none
            warnings.append(f"{folder.name}: run {number} has no labels and was left out")
    xyz = volumes.places(inside, bold.affine)
    return Recording(
        recorded, _NILEARN_TR, xyz, mask_image, path.name, mask, _roi(masks, inside, bold), warnings
    )


def _labels(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ``labels.txt``: category of each volume, and its run from 1."""
    path = folder / "labels.txt"
    if not path.is_file():
        raise MissingDataError(
            f"{path} does not exist; it says what was shown when (brainlab data fetch haxby2001)"
        )
    rows = [line.split() for line in path.read_text().splitlines()[1:] if line.strip()]
    if not rows or any(len(row) != 2 or not row[1].isdigit() for row in rows):
        raise InputError(f"{path}: expected a header and rows of a label and a run number")
    unknown = sorted({row[0] for row in rows} - {*CATEGORIES, "rest"})
    if unknown:
        raise InputError(f"{path}: unknown label {unknown[0]!r}; allowed: {', '.join(CATEGORIES)}, rest")
    return np.array([row[0] for row in rows]), np.array([int(row[1]) for row in rows]) + 1


def _blocks(names: np.ndarray) -> list[Event]:
    edges = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True])
    spans = [(int(a), int(b), str(names[a])) for a, b in pairwise(edges)]
    return [Event(a * _NILEARN_TR, (b - a) * _NILEARN_TR, name) for a, b, name in spans if name != "rest"]


def _mask(name: str, masks: Mapping[str, Path], like: Any, like_path: Path) -> tuple[np.ndarray, Any]:
    if name in masks:
        return volumes.read_mask(masks[name], like, like_path)
    if name != "bold":
        raise InputError(
            f"mask {name!r} is not there for {like_path}; allowed: {', '.join([*masks, 'bold'])}"
        )
    import nibabel

    everywhere = np.ones(like.shape[:3], bool)
    mean = volumes.read_voxels(like, everywhere, like_path).mean(0).reshape(like.shape[:3])
    # tissue is far brighter than air; a fifth of the bright end separates them on these images
    inside = mean > 0.2 * np.quantile(mean, 0.98)
    if not inside.any():
        raise InputError(f"{like_path} is dark everywhere; no voxel has signal: check the file")
    return inside, nibabel.Nifti1Image(inside.astype(np.uint8), like.affine)


def _roi(masks: Mapping[str, Path], inside: np.ndarray, like: Any) -> dict[str, np.ndarray]:
    out = {}
    for name, path in masks.items():
        other = volumes.open_image(path)
        if other.shape[:3] == like.shape[:3] and np.allclose(other.affine, like.affine, atol=1e-3):
            out[name] = volumes.read_voxels(other, inside, path) != 0
    return out


def _repetition_time(image: Any, path: Path) -> float:
    seconds = float(image.header.get_zooms()[3])
    if not 0.1 <= seconds <= 20:
        raise InputError(f"{path}: repetition time {seconds:g} s in the header; allowed: 0.1 to 20 s")
    return seconds
