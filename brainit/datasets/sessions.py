"""A subject from what was read of its files: one session of bare arrays, or several with tables of trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from brainit.datasets.files import clean
from brainit.datasets.files.ceiling import noise_ceiling
from brainit.datasets.files.events import Trial
from brainit.datasets.files.presence import there
from brainit.datasets.files.stimuli import read_stimuli
from brainit.datasets.files.text import read_json
from brainit.errors import InputError
from brainit.subject import Subject

_KEPT = ("Name", "License", "Simulated")
_FEW_REPEATS = 10  # of so many the noise variance is off by 45 % (the root of 2 over it)


def one_session(
    dataset: str, betas: np.ndarray, images: np.ndarray, train: np.ndarray, **more: Any
) -> Subject:
    """Return the subject; pictures are known by their content.

    Parameters
    ----------
    dataset : str
    betas : float32 array of shape (n_trials, n_voxels)
    images : float32 array of shape (n_trials, H, W[, 3])
        The picture of each trial, 0..1.
    train : bool array of shape (n_trials,)
    **more
        Further fields of `Subject`: labels, roi, info.
    """
    ids = np.array([clean.content_id(image) for image in images])
    ones = np.ones(len(ids), np.int64)
    return Subject(
        dataset=dataset,
        name="S1",
        simulated=False,
        betas=betas,
        xyz=np.full((betas.shape[1], 3), np.nan, np.float32),
        stimulus_id=ids,
        session=ones,
        run=ones.copy(),
        repeat=clean.count_repeats(ids),
        split=np.where(train, "train", "test"),
        stimuli=dict(zip(ids.tolist(), images, strict=True)),
        **more,
    )


def several_sessions(
    dataset: str,
    name: str,
    root: Path,
    folder: Path,
    betas: np.ndarray,
    trials: list[Trial],
    warnings: list[str],
    *,
    nan: str,
    zscore: str,
    range: str,
    about: dict[str, Any],
    ceiling: np.ndarray | None = None,
    **places: Any,
) -> Subject:
    """Return the subject: usable voxels, scaled within sessions, beside the pictures of ``root/stimuli``.

    Parameters
    ----------
    dataset, name : str
    root, folder : Path
        Of the dataset, and of the subject within it, for messages.
    betas : array of shape (n_trials, n_voxels)
    trials : list of Trial
        One for each row of ``betas``.
    warnings : list of str
        What was noticed so far.
    nan, zscore, range : str
        As options of the dataset.
    about : dict
        What the dataset says of itself.
    ceiling : array of shape (n_voxels,), optional
        Noise ceilings; estimated from repeats if left out.
    **places
        Further fields of `Subject`: xyz, roi, mask.

    Raises
    ------
    MissingDataError
        A picture is not there.
    InputError
        Too few training trials, no usable voxel, or pictures that cannot be read.
    """
    split = np.array([t.split for t in trials])
    session = np.array([t.session for t in trials])
    ids = np.array([t.stimulus_id for t in trials])
    train = split == "train"
    if train.sum() < 2:
        raise InputError(
            f"{folder}: {int(train.sum())} training trials; at least 2 are needed (column split)"
        )
    alone: list[str] = []
    bad = None if ceiling is None else ~np.isfinite(ceiling)
    keep, more = clean.usable_voxels(betas, train, nan, str(folder), bad)
    warnings += more
    betas = np.where(keep, betas, 0)
    stimuli = None
    if (root / "stimuli").is_dir():
        stimuli = read_stimuli(root / "stimuli", range).only(ids, str(root / "stimuli"))
        warnings += stimuli.warnings
    else:
        warnings.append(
            f"{root} holds no folder 'stimuli': pictures are not known, only categories can be decoded"
        )
    if zscore == "session":
        still = clean.still_somewhere(betas[:, keep], session, train, "session")
        warnings += [f"{folder}: {line}" for line in still]
        betas = clean.zscore(betas, session, train, "session")
        alone = clean.scaled_alone(session, train, f"{folder}: session")
        warnings += alone
    source = "as in the folder's map"
    if ceiling is None:
        ceiling, source, doubt = _estimated(betas, ids, train, str(folder))
        warnings += doubt
    whole = Subject(
        dataset=dataset,
        name=name,
        simulated=bool(about.get("Simulated", False)),
        betas=betas.astype(np.float32),
        stimulus_id=ids,
        session=session,
        run=np.array([t.run for t in trials]),
        repeat=clean.count_repeats(ids),
        split=split,
        stimuli=stimuli,
        labels=_labels(trials, folder, warnings),
        noise_ceiling=ceiling,
        **places,
        info={
            **{k: v for k, v in about.items() if k not in _KEPT},
            "source": about.get("Name", str(root.name)),
            "terms": about.get("License", "not stated"),
            "units": _units(zscore, bool(alone)),
            **({} if ceiling is None else {"noise_ceiling": source}),
            "warnings": list(dict.fromkeys(warnings)),
        },
    )
    return whole if keep.all() else whole.keep_voxels(keep)


def _estimated(
    betas: np.ndarray, ids: np.ndarray, train: np.ndarray, where: str
) -> tuple[np.ndarray | None, str, list[str]]:
    """Estimate the noise ceiling from repeats: of training or of test pictures, whichever has more of them.

    It is what scores of voxels are compared with, nothing learns from it. Betas are as they are learned from:
    sessions apart would pass for signal.

    Returns
    -------
    ceiling : float32 array of shape (n_voxels,), or None
    source : str
    warnings : list of str
        So few repeats that a single voxel's ceiling is mostly chance.
    """
    repeats = {
        name: len(ids[t]) - len(np.unique(ids[t])) for name, t in (("training", train), ("test", ~train))
    }
    which = max(repeats, key=lambda name: repeats[name])
    if not repeats[which]:
        return None, "", []
    trials, source = train if which == "training" else ~train, f"estimated from repeated {which} pictures"
    few = [
        f"{where}: noise ceilings come from {repeats[which]} repeats of {which} pictures: with fewer than "
        f"{_FEW_REPEATS} a single voxel's is mostly chance"
    ] if repeats[which] < _FEW_REPEATS else []  # fmt: skip
    return noise_ceiling(betas[trials], ids[trials]), source, few


def _units(zscore: str, alone: bool) -> str:
    if zscore == "none":
        return "as in the files"
    return "z-scored within session by training trials" + (
        " (where there are enough: see the warnings)" if alone else ""
    )


def _labels(trials: list[Trial], folder: Path, warnings: list[str]) -> np.ndarray | None:
    known = sum(bool(t.label) for t in trials)
    if 0 < known < len(trials):
        warnings.append(
            f"{folder}: {len(trials) - known} of {len(trials)} trials have no trial_type: labels are left out"
        )
    return np.array([t.label for t in trials]) if known == len(trials) else None


def describe(root: Path) -> dict[str, Any]:
    """Read what the folder says of itself; its words never take the place of what was found in the files."""
    path = root / "dataset_description.json"
    if not there(path):
        return {}
    about = read_json(path)
    if not isinstance(about.get("Simulated", False), bool):
        raise InputError(f"{path}: Simulated is {about['Simulated']!r}; allowed: true or false")
    for key in ("Name", "License"):
        if key in about and not isinstance(about[key], str):
            about[key] = json.dumps(about[key], ensure_ascii=False)
    return about
