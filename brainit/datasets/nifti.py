"""Any folder of NIfTI betas, masks and events: the simulator writes this layout, and so can anybody.

::

    dataset_description.json                          optional: Name, License, Simulated
    stimuli/stimuli.npz  or  stimuli/<stimulus_id>.png     optional
    sub-01/*_mask.nii.gz                              voxels that were measured
    sub-01/*_dseg.nii.gz and *_dseg.tsv (index, name) optional: regions
    sub-01/*_desc-noiseceiling_statmap.nii.gz         optional: 0..1, one trial
    sub-01/ses-01/*_desc-betas_statmap.nii.gz         4D, one volume a trial
    sub-01/ses-01/*_events.tsv                        one row a volume: stimulus_id, split (trial_type, run)
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean, volumes
from brainit.datasets.files.ceiling import noise_ceiling
from brainit.datasets.files.pictures import read_stimuli
from brainit.errors import InputError, MissingDataError
from brainit.subject import Subject

_BETAS = "_desc-betas_statmap.nii.gz"


def subjects(root: Path) -> list[str]:
    """Return the names of the ``sub-*`` folders."""
    found = sorted(p.name for p in root.glob("sub-*") if p.is_dir())
    if not found:
        raise MissingDataError(f"{root} holds no sub-* folder; expected sub-01/ses-01/*{_BETAS}")
    return found


def load(root: Path, subject: str | None = None, **options: Any) -> Subject:
    """Read one subject of a folder; options as for ``load_folder``."""
    return load_folder(root, clean.pick_subject(subject, subjects(root), root), **options)


def load_folder(
    root: Path, subject: str, *, nan: str = "error", zscore: str = "session", dataset: str = "nifti"
) -> Subject:
    """Read the betas, places and pictures of one subject.

    Parameters
    ----------
    root : Path
    subject : str
        Name of a ``sub-*`` folder.
    nan : {"error", "drop"}
    zscore : {"session", "none"}
        Scale each voxel within each session by the mean and deviation of that session's training trials.
    dataset : str
        Name that the subject carries.

    Returns
    -------
    Subject

    Raises
    ------
    MissingDataError
        A mask, betas, events or pictures are not there.
    InputError
        They do not fit each other.
    """
    clean.choice(zscore, ("session", "none"), "zscore")
    folder = root / subject
    files = sorted(folder.rglob(f"*{_BETAS}"))
    if not files:
        raise MissingDataError(f"{folder} holds no betas; expected ses-01/*{_BETAS}")
    inside, mask = volumes.read_mask(_only(folder, "*_mask.nii.gz"), volumes.open_image(files[0]), files[0])
    values, trials = [], []
    for path in files:
        image = volumes.open_image(path)
        volumes.same_grid(mask, _only(folder, "*_mask.nii.gz"), image, path)
        rows = _events(path)
        n_volumes = image.shape[3] if len(image.shape) == 4 else 1
        if n_volumes != len(rows):
            raise InputError(
                f"{path} has {n_volumes} volumes and its events {len(rows)} rows; one row a volume is needed"
            )
        values.append(np.atleast_2d(volumes.read_voxels(image, inside, path)))
        trials += rows
    betas = np.concatenate(values)
    split = np.array([t.split for t in trials])
    session = np.array([t.session for t in trials])
    ids = np.array([t.stimulus_id for t in trials])
    train = split == "train"
    if train.sum() < 2:
        raise InputError(
            f"{folder}: {int(train.sum())} training trials; at least 2 are needed (column split)"
        )
    keep, warnings = clean.usable_voxels(betas, train, nan, str(folder))
    ceiling = _ceiling(folder, inside, betas, ids, train)
    about = _description(root)
    stimuli = None
    if (root / "stimuli").is_dir():
        stimuli = read_stimuli(root / "stimuli").only(ids, str(root / "stimuli"))
    betas = np.where(keep, betas, 0)
    if zscore == "session":
        betas = clean.zscore(betas, session, train)
    whole = Subject(
        dataset=dataset,
        name=subject,
        simulated=bool(about.get("Simulated", False)),
        betas=betas.astype(np.float32),
        xyz=volumes.places(inside, mask.affine),
        stimulus_id=ids,
        session=session,
        run=np.array([t.run for t in trials]),
        repeat=clean.count_repeats(ids),
        split=split,
        stimuli=stimuli,
        labels=np.array([t.label for t in trials]) if all(t.label for t in trials) else None,
        roi=_regions(folder, inside, mask),
        noise_ceiling=ceiling,
        mask=mask,
        info={
            "source": about.get("Name", str(root.name)),
            "terms": about.get("License", "not stated"),
            "units": "z-scored within session by training trials"
            if zscore == "session"
            else "as in the files",
            "warnings": warnings,
            **{k: v for k, v in about.items() if k not in ("Name", "License", "Simulated")},
        },
    )
    return whole if keep.all() else whole.keep_voxels(keep)


@dataclass(frozen=True)
class _Trial:
    stimulus_id: str
    split: str
    label: str
    session: int
    run: int


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise MissingDataError(f"{folder} holds no {pattern}; it says which voxels were measured")
    if len(found) > 1:
        raise InputError(
            f"{folder} holds {len(found)} files {pattern}; one is allowed: {', '.join(p.name for p in found)}"
        )
    return found[0]


def _events(betas: Path) -> list[_Trial]:
    path = betas.with_name(betas.name.removesuffix(_BETAS) + "_events.tsv")
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; every file of betas needs its events")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    if not rows:
        raise InputError(f"{path} holds no events; one row a volume is needed")
    missing = [k for k in ("stimulus_id", "split") if k not in rows[0]]
    if missing:
        raise InputError(f"{path}: column {missing[0]} is missing; found: {', '.join(map(str, rows[0]))}")
    out = []
    for line, row in enumerate(rows, start=2):
        if row["split"] not in ("train", "test"):
            raise InputError(f"{path} line {line}: split is {row['split']!r}; allowed: train, test")
        run = row.get("run") or _number(path.name, "run")
        if not str(run).isdigit():
            raise InputError(f"{path} line {line}: run is {run!r}; allowed: a whole number")
        label = row.get("trial_type") or ""
        out.append(_Trial(row["stimulus_id"] or "", row["split"], label, _number(path.name, "ses"), int(run)))
    if any(not trial.stimulus_id for trial in out):
        raise InputError(f"{path}: a row has no stimulus_id; every volume needs one")
    return out


def _number(name: str, entity: str) -> int:
    match = re.search(rf"(?:^|_){entity}-0*(\d+)", name)
    return int(match[1]) if match else 1


def _ceiling(
    folder: Path, inside: np.ndarray, betas: np.ndarray, ids: np.ndarray, train: np.ndarray
) -> np.ndarray | None:
    """Read the noise ceiling, else estimate it from training repeats; test trials are never used."""
    found = sorted(folder.glob("*_desc-noiseceiling_statmap.nii.gz"))
    if found:
        return np.clip(volumes.read_voxels(volumes.open_image(found[0]), inside, found[0]), 0, 1)
    repeated = np.unique(ids[train], return_counts=True)[1].max() > 1
    return noise_ceiling(betas[train], ids[train]) if repeated else None


def _regions(folder: Path, inside: np.ndarray, mask: Any) -> dict[str, np.ndarray]:
    found = sorted(folder.glob("*_dseg.nii.gz"))
    if not found:
        return {}
    image = volumes.open_image(found[0])
    volumes.same_grid(image, found[0], mask, Path("the mask"))
    codes = volumes.read_voxels(image, inside, found[0])
    table = found[0].with_name(found[0].name.removesuffix(".nii.gz") + ".tsv")
    if not table.is_file():
        return {f"region{int(c)}": codes == c for c in np.unique(codes) if c > 0}
    with table.open(newline="", encoding="utf-8") as stream:
        return {row["name"]: codes == float(row["index"]) for row in csv.DictReader(stream, delimiter="\t")}


def _description(root: Path) -> dict[str, Any]:
    path = root / "dataset_description.json"
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct or remove it") from error
    return about if isinstance(about, dict) else {}
