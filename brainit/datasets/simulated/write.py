"""Write simulated subjects in the layout that ``brainit.datasets.nifti`` reads."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files.clean import content_id
from brainit.datasets.simulated.anatomy import AREAS, Cortex
from brainit.datasets.simulated.design import Trials
from brainit.datasets.simulated.tuning import KINDS, Tuning
from brainit.errors import InputError
from brainit.io import write_text

DESCRIPTION = "dataset_description.json"
_STARTED = "simulation.json"
_SECONDS = 4.0
"""Seconds from one trial to the next; a picture is shown for three of them."""


@dataclass(frozen=True)
class Made:
    """One simulated subject before it is written."""

    cortex: Cortex
    tuning: Tuning
    trials: Trials
    ceiling: np.ndarray
    betas: np.ndarray


def subject_name(number: int) -> str:
    """Name of subject ``number`` (from 0)."""
    return f"sub-{number + 1:02d}"


def begin(root: Path, about: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> None:
    """Claim ``root`` for this simulation and write its pictures.

    Raises
    ------
    InputError
        ``root`` holds another simulation, or other files.
    """
    started = root / _STARTED
    if started.is_file():
        there = json.loads(started.read_text(encoding="utf-8"))
        if there != about:
            differ = sorted(k for k in about if there.get(k) != about[k])
            raise InputError(
                f"{root} holds another simulation (different: {', '.join(differ)}); use another folder"
            )
    elif root.is_dir() and any(root.iterdir()):
        raise InputError(f"{root} is not empty and holds no simulation; give a new or empty folder")
    root.mkdir(parents=True, exist_ok=True)
    for stale in root.glob(".tmp-*"):  # what a killed call left
        shutil.rmtree(stale, ignore_errors=True)
    write_text(started, json.dumps(about, indent=1) + "\n")
    if not (root / "stimuli" / "stimuli.npz").is_file():
        folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=root))
        ids = np.array([content_id(image / 255.0) for image in images])
        np.savez(folder / "stimuli.npz", ids=ids, images=images, labels=labels)
        folder.replace(root / "stimuli")


def finish(root: Path, about: dict[str, Any]) -> None:
    """Say that all subjects are there."""
    whole = {
        "Name": "simulated visual cortex",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": "made by this program; the pictures keep the terms of their source",
        "GeneratedBy": [{"Name": "brainit.datasets.simulated"}],
        "Simulated": True,
        **about,
    }
    write_text(root / DESCRIPTION, json.dumps(whole, indent=1) + "\n")


def subject(root: Path, number: int, made: Made, labels: np.ndarray) -> None:
    """Write one subject to a temporary folder and rename it."""
    name = subject_name(number)
    with np.load(root / "stimuli" / "stimuli.npz", allow_pickle=False) as file:
        ids = file["ids"]
    folder = Path(tempfile.mkdtemp(prefix=f".tmp-{name}-", dir=root))
    folder.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    cortex, stem = made.cortex, f"{name}_space-MNI152"
    _image(folder / f"{stem}_desc-visual_mask.nii.gz", cortex, np.ones(cortex.area.size, np.uint8))
    _image(folder / f"{stem}_desc-areas_dseg.nii.gz", cortex, (cortex.area + 1).astype(np.uint8))
    _table(folder / f"{stem}_desc-areas_dseg.tsv", ("index", "name"), enumerate(AREAS, start=1))
    _image(folder / f"{stem}_desc-noiseceiling_statmap.nii.gz", cortex, made.ceiling)
    kinds = [KINDS[k] for k in made.tuning.kind]
    truth = zip(kinds, made.tuning.prototype, cortex.x, cortex.y, cortex.sigma, made.ceiling, strict=True)
    rows = ((k, int(p), *(f"{v:.4f}" for v in rest)) for k, p, *rest in truth)
    header = ("kind", "prototype", "x_deg", "y_deg", "sigma_deg", "noise_ceiling")
    _table(folder / f"{name}_desc-truth_voxels.tsv", header, rows)
    for session in np.unique(made.trials.session):
        _session(folder, name, int(session), made, ids, labels)
    folder.replace(root / name)


def _session(folder: Path, name: str, session: int, made: Made, ids: np.ndarray, labels: np.ndarray) -> None:
    here = np.flatnonzero(made.trials.session == session)
    inner = folder / f"ses-{session:02d}"
    inner.mkdir()
    stem = f"{name}_ses-{session:02d}_task-pictures"
    _image(inner / f"{stem}_desc-betas_statmap.nii.gz", made.cortex, made.betas[here])
    rows, start, last = [], 0, None
    for k, trial in enumerate(here):
        run = int(made.trials.run[trial])
        start, last = (k, run) if run != last else (start, last)
        picture = made.trials.picture[trial]
        split = "test" if made.trials.test[trial] else "train"
        rows.append((f"{(k - start) * _SECONDS:g}", "3", str(labels[picture]), run, str(ids[picture]), split))
    header = ("onset", "duration", "trial_type", "run", "stimulus_id", "split")
    _table(inner / f"{stem}_events.tsv", header, rows)


def _image(path: Path, cortex: Cortex, values: np.ndarray) -> None:
    """Write one value, or one row of values, a voxel; betas as scaled 16-bit integers, as usual."""
    import nibabel

    grid = np.zeros((*cortex.inside.shape, *values.shape[:-1]), values.dtype)
    grid[cortex.inside] = values.T
    image = nibabel.Nifti1Image(grid, cortex.affine)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim == 2:
        image.header.set_data_dtype(np.int16)
    nibabel.save(image, path)


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
