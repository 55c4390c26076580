"""Any folder of NIfTI betas, masks and events: the simulator writes this layout, and so can anybody.

::

    dataset_description.json                          optional: Name, License, Simulated, space
    stimuli/stimuli.npz  or  stimuli/<stimulus_id>.png     optional
    sub-01/*_mask.nii.gz                              voxels that were measured
    sub-01/*_dseg.nii.gz and *_dseg.tsv (index, name) optional: regions
    sub-01/*_desc-noiseceiling_statmap.nii.gz         optional: 0..1, one trial; else estimated from repeats
    sub-01/ses-01/*_desc-betas_statmap.nii.gz         4D, one volume a trial
    sub-01/ses-01/*_events.tsv                        one row a volume: stimulus_id, split (trial_type, run)

Every image may also end in ``.nii``. All images of a subject must lie on one grid. Which space that is, is
said by the description ("space"), by the mask's name (``sub-01_space-MNI152_mask``), or by its header.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean, geometry, volumes
from brainit.datasets.files.events import entity, number_sessions, out_of_order, read_trials
from brainit.datasets.files.presence import there, visible
from brainit.datasets.files.text import read_table
from brainit.datasets.sessions import describe, several_sessions
from brainit.errors import InputError, MissingDataError
from brainit.io import fingerprint
from brainit.subject import Subject

_BETAS = "_desc-betas_statmap"


def subjects(root: Path) -> list[str]:
    """Return the names of the ``sub-*`` folders."""
    found = [p.name for p in visible(root.glob("sub-*")) if p.is_dir()]
    if not found:
        raise MissingDataError(
            f"{root} holds no sub-* folder; expected sub-01/ses-01/*{_BETAS}.nii.gz (matrices, as .npy: "
            "dataset 'arrays')"
        )
    return found


def load(root: Path, subject: str | None = None, **options: Any) -> Subject:
    """Read one subject of a folder; options as for ``load_folder``."""
    return load_folder(root, clean.pick_subject(subject, subjects(root), root), **options)


def load_folder(
    root: Path,
    subject: str,
    *,
    nan: str = "error",
    zscore: str = "session",
    range: str = "auto",
    dataset: str = "nifti",
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
    range : str
        Values of black and white in ``stimuli.npz``, ``"LOW..HIGH"``; ``"auto"``: by type or as it says.
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
    files = volumes.find(folder, f"*{_BETAS}", deep=True)
    if not files:
        raise MissingDataError(f"{folder} holds no betas; expected ses-01/*{_BETAS}.nii.gz")
    _in_their_folders(files, folder)
    sessions = number_sessions([entity(path.name, "ses") for path in files])
    files.sort(key=lambda path: (sessions[entity(path.name, "ses")], _run(path), path.name))
    first = volumes.open_image(files[0])
    inside, mask, warnings = volumes.read_mask(_mask(folder), first, files[0])
    space = geometry.stated_space(mask, _mask(folder))
    values, trials, read = [], [], dict[str, Path]()
    for path in files:
        image = volumes.open_image(path)
        geometry.same_series(first, files[0], image, path)
        warnings += geometry.odd_header(image, path)
        rows = read_trials(_events_of(path), sessions[entity(path.name, "ses")])
        n_volumes = image.shape[3] if len(image.shape) == 4 else 1
        if n_volumes != len(rows):
            raise InputError(
                f"{path} has {n_volumes} volumes and its events {len(rows)} rows; one row a volume is needed"
            )
        warnings += out_of_order(rows, str(_events_of(path)))
        values.append(np.atleast_2d(volumes.read_voxels(image, inside, path)))
        other = read.setdefault(fingerprint(None, [values[-1]]), path)
        if other != path:
            raise InputError(f"{other} and {path} hold the same values: one is a copy; remove it")
        trials += rows
    ceiling = _ceiling(folder, inside, mask, warnings)
    about = describe(root)
    return several_sessions(
        dataset,
        subject,
        root,
        folder,
        np.concatenate(values),
        trials,
        warnings,
        nan=nan,
        zscore=zscore,
        range=range,
        ceiling=ceiling,
        about={**({} if space is None else {"space": space}), **about},
        xyz=volumes.places(inside, mask.affine),
        roi=_regions(folder, inside, mask),
        mask=mask,
    )


def _in_their_folders(files: list[Path], folder: Path) -> None:
    """Refuse a file of one session that lies in another's folder: which it is, is not known."""
    for path in files:
        inner = path.relative_to(folder).parts[:-1]
        said, place = entity(path.name, "ses"), next((s for s in (entity(p, "ses") for p in inner) if s), "")
        if said != place and place:
            raise InputError(
                f"{path}: its name says session {said or '(none)'!r} and its folder {place!r}; rename one"
            )


def _run(path: Path) -> int:
    """Return the run in a file's name, so that run 10 comes after run 2; 0 where there is none."""
    number = entity(path.name, "run")
    return int(number) if number.isdecimal() else 0


def _mask(folder: Path) -> Path:
    return volumes.one(folder, "*_mask", "which voxels were measured")


def _events_of(betas: Path) -> Path:
    return Path(f"{volumes.bare(betas).removesuffix(_BETAS)}_events.tsv")


def _ceiling(folder: Path, inside: np.ndarray, mask: Any, warnings: list[str]) -> np.ndarray | None:
    """Read the noise ceiling where there is one: NaN stays NaN, a share below 0 becomes 0."""
    path = volumes.only(folder, "*_desc-noiseceiling_statmap")
    if path is None:
        return None
    image = volumes.open_image(path)
    geometry.same_grid(image, path, mask, _mask(folder))
    found = volumes.read_voxels(image, inside, path)
    if found.ndim != 1:
        raise InputError(f"{path} has shape {image.shape}; a noise ceiling is one number a voxel")
    high = float(np.nanmax(found, initial=0))
    if high > 1.001:
        raise InputError(
            f"{path}: noise ceilings up to {high:g}; allowed: 0..1, the share of one trial's variance; "
            "divide percent by 100"
        )
    if np.nanmin(found, initial=0) < 0:
        warnings.append(
            f"{path}: {int((found < 0).sum())} of {found.size} noise ceilings are below 0; read as 0"
        )
    return np.clip(found, 0, 1)


def _regions(folder: Path, inside: np.ndarray, mask: Any) -> dict[str, np.ndarray]:
    path = volumes.only(folder, "*_dseg")
    if path is None:
        return {}
    image = volumes.open_image(path)
    geometry.same_grid(image, path, mask, _mask(folder))
    codes = volumes.read_voxels(image, inside, path)
    if codes.ndim != 1 or (codes[np.isfinite(codes)] % 1).any():
        raise InputError(
            f"{path}: region codes must be one whole number a voxel; resample by nearest neighbour"
        )
    table = Path(f"{volumes.bare(path)}.tsv")
    if not there(table):
        return {f"region{int(c)}": codes == c for c in np.unique(codes[np.isfinite(codes)]) if c > 0}
    rows = read_table(table, ("index", "name"))
    index = [row.number("index") for row in rows]
    clean.each_once(((row.text("name"), row.where) for row in rows), "region")
    clean.each_once(((f"{c:g}", row.where) for c, row in zip(index, rows, strict=True)), "region code")
    nameless = next((row for row in rows if not row.text("name")), None)
    if nameless is not None:
        raise InputError(
            f"{nameless.where}: region {nameless['index']} has no name; name it or remove the line"
        )
    unknown = sorted(set(np.unique(codes[np.isfinite(codes)]).tolist()) - {0, *index})
    if unknown:
        raise InputError(
            f"{path} holds region code {unknown[0]:g}, which {table.name} does not name; add it there, or "
            "set those voxels to 0"
        )
    return {row.text("name"): codes == c for c, row in zip(index, rows, strict=True)}
