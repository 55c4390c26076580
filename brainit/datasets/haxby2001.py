"""haxby2001: 4D BOLD of people looking at eight categories in blocks, as one beta a block.

Which picture was shown when is not recorded, so ``stimuli`` is None: only categories can be decoded, leaving
one run out. The last run is marked "test"; cross-validation goes over ``run``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets import haxby_files
from brainit.datasets.files import clean
from brainit.datasets.files.glm import block_betas, ends_early, has_baseline
from brainit.datasets.findings import Finding
from brainit.datasets.haxby_files import CATEGORIES
from brainit.errors import InputError
from brainit.subject import Subject

__all__ = ["CATEGORIES", "check", "fetch", "load", "subjects"]


def subjects(root: Path) -> list[str]:
    """Return the subjects' folder names, ``sub001`` (small copy) or ``subj1`` (nilearn)."""
    return [folder.name for folder in haxby_files.subject_folders(root)]


def load(
    root: Path,
    subject: str | None = None,
    *,
    image: str = "auto",
    mask: str = "auto",
    test_run: int | None = None,
    zscore: str = "run",
    hrf: str = "glover",
    noise: str = "ols",
    nan: str = "error",
    baseline: str = "percent",
    repetition_time: float | None = None,
) -> Subject:
    """Fit block betas and return them as a Subject.

    Parameters
    ----------
    root : Path
        Folder with ``sub001/task001_run001/bold_*.nii.gz``, or one that nilearn's ``fetch_haxby`` filled.
    subject : str, optional
    image : {"auto", "1slice", "25mm"}
        BOLD file of the small copy; "auto" takes the finest, 1slice, if it is there.
    mask : str
        Name of a mask of the folder, "bold" (voxels with signal), or "auto".
    test_run : int, optional
        Run whose blocks are marked "test"; default the last.
    zscore : {"run", "none"}
        Scale each voxel within each run (no labels are used), or leave percent signal change.
    hrf : {"glover", "spm"}
    noise : {"ols", "ar1"}
        As in ``nilearn.glm``.
    nan : {"error", "drop"}
        Voxels with NaN or infinite values inside the mask.
    baseline : {"percent", "none"}
        Amplitudes in percent of each voxel's mean, or in the file's units where the mean was removed.
    repetition_time : float, optional
        Seconds between volumes; default what the headers state.

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        A run has no events, events end after it, a trial type is unknown, grids or timing differ between
        files, or the BOLD has no mean to be a percentage of.
    """
    clean.choice(zscore, ("run", "none"), "zscore")
    clean.choice(hrf, ("glover", "spm"), "hrf")
    clean.choice(noise, ("ols", "ar1"), "noise")
    clean.choice(nan, ("error", "drop"), "nan")
    clean.choice(baseline, ("percent", "none"), "baseline")
    folders = {folder.name: folder for folder in haxby_files.subject_folders(root)}
    folder = folders[clean.pick_subject(subject, list(folders), root)]
    recording = haxby_files.read(folder, image, mask, _seconds(repetition_time))
    numbers = [run.number for run in recording.runs]
    last = numbers[-1] if test_run is None else test_run
    if isinstance(last, bool) or last not in numbers or len(numbers) < 2:
        raise InputError(
            f"{folder}: test_run {last!r} of runs {numbers}; allowed: one of them, with others to train on"
        )
    betas, labels, runs, ids = [], [], [], []
    warnings = list(recording.warnings)
    based = np.ones(recording.runs[0].series.shape[1], bool)
    for run in recording.runs:
        where = f"{folder.name} run {run.number}"
        if baseline == "percent":
            based &= has_baseline(run.series, where)
        found, odd = block_betas(
            run.series,
            run.events,
            recording.repetition_time,
            where,
            hrf=hrf,
            noise=noise,
            baseline=baseline,
        )
        betas.append(found)
        warnings += [*odd, *ends_early(run.events, len(run.series) * recording.repetition_time, where)]
        labels += [event.trial_type for event in run.events]
        runs += [run.number] * len(run.events)
        ids += [f"run{run.number:02d}-block{i:02d}" for i in range(len(run.events))]
    number = np.array(runs)
    train = number != last
    values = np.concatenate(betas)
    keep, dropped = clean.usable_voxels(values, train, nan, str(folder))
    values = np.where(keep, values, 0)
    warnings += dropped
    if (keep & ~based).any():
        warnings.append(
            f"{folder}: dropped {int((keep & ~based).sum())} of {keep.size} voxels whose mean does not "
            "exceed their spread in every run"
        )
        keep &= based
    if zscore == "run":
        # a run's own mean and spread, of all its blocks: uses no labels and no other run
        values = clean.zscore(values, number, np.ones(len(number), bool), "run")
    whole = Subject(
        dataset="haxby2001",
        name=folder.name,
        simulated=False,
        betas=values.astype(np.float32),
        xyz=recording.xyz,
        stimulus_id=np.array(ids),
        session=np.ones(len(number), np.int64),
        run=number,
        repeat=np.zeros(len(number), np.int64),
        split=np.where(train, "train", "test"),
        stimuli=None,
        labels=np.array(labels),
        roi=recording.roi,
        mask=recording.mask,
        info={
            "source": "Haxby et al. 2001, doi 10.1126/science.1063736",
            "terms": "CC BY-SA 3.0",
            "image": recording.image,
            "mask": recording.mask_name,
            "units": _units(zscore, baseline),
            "glm": f"one regressor a block, {hrf} response, {noise}, cosine drift (1/128 Hz), nilearn.glm",
            "pictures": "which picture was shown when is not recorded: categories only",
            "warnings": warnings,
        },
    )
    return whole if keep.all() else whole.keep_voxels(keep)


def _units(zscore: str, baseline: str) -> str:
    if zscore == "run":
        return "z-scored within run"
    return "percent signal change" if baseline == "percent" else "as in the files"


def _seconds(stated: Any) -> float | None:
    if stated is None:
        return None
    try:
        return float(stated)
    except (TypeError, ValueError):
        raise InputError(f"repetition_time is {stated!r}; allowed: seconds, such as 2.5") from None


def check(root: Path) -> Iterator[Finding]:
    """Yield what only this adapter can know: runs missing from the numbering."""
    for folder in haxby_files.subject_folders(root):
        numbers = haxby_files.run_numbers(folder)
        gaps = sorted(set(range(1, 13)) - set(numbers))
        if gaps:
            yield Finding(
                "warning", f"haxby2001 {folder.name}: runs missing of 12: {', '.join(map(str, gaps))}"
            )


def fetch(root: Path, progress: Any) -> Path:
    """Download subject 2 with nilearn (MD5 checked by it) into ``root``."""
    from nilearn.datasets import fetch_haxby

    progress(0, 1, "haxby2001 subject 2 (about 310 MB)")
    root.mkdir(parents=True, exist_ok=True)
    try:
        fetch_haxby(data_dir=str(root), subjects=[2], verbose=0)
    except OSError as error:
        raise InputError(
            f"haxby2001 could not be downloaded to {root} ({error}); try again or copy it there"
        ) from error
    progress(1, 1, "haxby2001 subject 2")
    return root
