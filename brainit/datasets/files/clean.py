"""What every adapter does to raw numbers: refuse, drop, name, count, scale."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainit.errors import InputError

_log = logging.getLogger(__name__)
_ROUNDING = 1e-6  # change over the largest value that single precision makes of a constant
FEW_SCALED = 8
"""Training trials of a group below which its scale is doubtful: of 8 a deviation is off by a quarter."""


def choice(value: str, allowed: Sequence[str], option: str) -> str:
    """Return ``value`` if it is one of ``allowed``, else raise InputError."""
    if value not in allowed:
        raise InputError(f"{option} is {value!r}; allowed: {', '.join(allowed)}")
    return value


def as_name(value: Any) -> str:
    """Return an identifier as composed text, whatever type or file name it came as.

    Raises
    ------
    InputError
        It is a list, a number with a fraction, or nothing.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="strict" if value.isascii() else "replace")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise InputError(f"a stimulus is called {value!r}; allowed: text or a whole number")
    return unicodedata.normalize("NFC", value)


def each_once(names: Iterable[tuple[str, str]], what: str) -> dict[str, str]:
    """Return where each name was found; refuse a name that stands for two things.

    Parameters
    ----------
    names : iterable of (name, where it was found)
    what : str
        What is named, for messages.

    Raises
    ------
    InputError
        A name is there twice; both places are said.
    """
    seen: dict[str, str] = {}
    for name, where in names:
        if name in seen:
            raise InputError(
                f"{what} {name!r} is there twice: {seen[name]} and {where}; rename or remove one"
            )
        seen[name] = where
    return seen


def usable_voxels(
    betas: np.ndarray, train: np.ndarray, nan: str, where: str, bad: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Decide which voxels can be used.

    What counts is what single precision keeps of the values, because that is learned from. Voxels with NaN or
    infinite values are an error unless ``nan="drop"``: they usually mean a wrong mask.
    Voxels that never change over the training trials, but for rounding, carry nothing and would divide by
    zero; they are dropped with a warning. A trial of one value in every voxel was not measured: it is named.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    train : bool array of shape (n_trials,)
    nan : {"error", "drop"}
    where : str
        Name of the file, for messages.
    bad : bool array of shape (n_voxels,), optional
        Voxels that hold NaN or infinite values elsewhere, such as in their noise ceiling.

    Returns
    -------
    keep : bool array of shape (n_voxels,)
    warnings : list of str

    Raises
    ------
    InputError
        NaN values with ``nan="error"``, or no voxel is left.
    """
    choice(nan, ("error", "drop"), "nan")
    with np.errstate(over="ignore", under="ignore"):
        betas = betas.astype(np.float32, copy=False)
    finite = np.isfinite(betas).all(0)
    if bad is not None:
        finite &= ~bad
    warnings = []
    n_bad = int((~finite).sum())
    if n_bad and nan == "error":
        raise InputError(
            f"{where}: {n_bad} of {finite.size} voxels hold NaN or infinite values (first: voxel "
            f"{int(np.argmin(finite))}); allowed: finite in single precision; correct the mask or open with "
            "nan=drop"
        )
    if n_bad:
        warnings.append(f"{where}: dropped {n_bad} of {finite.size} voxels with NaN or infinite values")
    moving = np.zeros(finite.size, bool)
    moving[finite] = ~_still(betas[train][:, finite])
    n_still = int((finite & ~moving).sum())
    if n_still:
        warnings.append(f"{where}: dropped {n_still} of {finite.size} voxels that never change in training")
    shown = betas if finite.all() else betas[:, finite]
    several = shown.shape[1] > 1
    blank = np.flatnonzero(np.ptp(shown, axis=1) == 0) if several else np.empty(0, int)
    if len(blank):
        warnings.append(
            f"{where}: {len(blank)} of {len(betas)} trials have one value in every voxel (first: trial "
            f"{blank[0] + 1}): they were not measured; leave them out of the files"
        )
    if not moving.any():
        raise InputError(
            f"{where}: no voxel of {finite.size} changes over the training trials; check the file"
        )
    for line in warnings:
        _log.warning(line)
    return moving, warnings


def _still(betas: np.ndarray) -> np.ndarray:
    """Return which voxels have one value over all trials, but for rounding: bool (n_voxels,)."""
    low, high = betas.min(0), betas.max(0)  # no copy: betas may be gigabytes
    return high - low <= _ROUNDING * np.maximum(high, -low)


def zscore(betas: np.ndarray, groups: np.ndarray, reference: np.ndarray, what: str = "group") -> np.ndarray:
    """Scale each voxel within each group by the mean and standard deviation of its reference trials.

    Brain-IT scales by all trials of a session, those of the test among them (and MindEye2 warns of it); here
    test trials take part only where a group has no others.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
    groups : array of shape (n_trials,)
        Session or run of each trial.
    reference : bool array of shape (n_trials,)
        Trials whose statistics are used (training trials); a group with fewer than two uses all its trials
        (`scaled_alone` says which).
    what : str
        What a group is, for messages.

    Returns
    -------
    float32 array of shape (n_trials, n_voxels)
        A voxel that is constant within a group's reference trials becomes 0 there.

    Raises
    ------
    InputError
        A group has one trial, of which nothing would be left.
    """
    out = np.empty(betas.shape, np.float32)
    for group in np.unique(groups):
        here = groups == group
        if here.sum() < 2:
            raise InputError(
                f"{what} {group:g} has one trial, which cannot be scaled by itself; put it into another "
                f"{what}, or leave betas as they are: zscore=none (--set options.zscore=none)"
            )
        used = here & reference
        source = betas[used if used.sum() > 1 else here].astype(np.float64)
        std, flat = source.std(0), _still(source)
        scaled = (betas[here] - source.mean(0)) / np.where(flat, 1.0, std)
        out[here] = np.where(flat, 0.0, scaled)
    return out


def still_somewhere(betas: np.ndarray, groups: np.ndarray, reference: np.ndarray, what: str) -> list[str]:
    """Return a warning where voxels change, but not within each group: `zscore` makes them 0 there."""
    still = {}
    for group in np.unique(groups):
        used = (groups == group) & reference
        if used.sum() > 1:
            still[group] = _still(betas[used])
    some = {group: flat & ~np.all(list(still.values()), 0) for group, flat in still.items()}
    any_flat = np.any(list(some.values()), 0) if some else np.zeros(1, bool)
    if not any_flat.any():
        return []
    first = next(group for group, flat in some.items() if flat.any())
    return [
        f"{int(any_flat.sum())} of {any_flat.size} voxels do not change within some {what} (first: {what} "
        f"{first:g}, {int(some[first].sum())} voxels) and are 0 there: out of the field of view, or another "
        "mask?"
    ]


def scaled_alone(groups: np.ndarray, reference: np.ndarray, what: str) -> list[str]:
    """Return a warning for each group that `zscore` scales badly: by its test trials, or by very few."""
    out, every = [], np.unique(groups)
    for group in every:
        here = groups == group
        known = int((here & reference).sum())
        if known < 2:
            out.append(
                f"{what} {group:g} has {known or 'no'} training trial{'' if known else 's'}, so its voxels "
                f"are scaled by all its {int(here.sum())} trials, test trials among them (pictures are not "
                "used): what is read from one test trial then hangs on the others; zscore=none leaves betas "
                "as they are"
            )
        elif known < FEW_SCALED and len(every) > 1:  # one scale for all is what decoders set anyway
            out.append(
                f"{what} {group:g} has {known} training trials, so few that their spread is mostly chance, "
                f"and the voxels of all its {int(here.sum())} trials are scaled by it: some come out far too "
                "large; move training trials there, or leave betas as they are with zscore=none"
            )
    return out


def content_id(image: np.ndarray, prefix: str = "img") -> str:
    """Name a picture by what it shows: equal pictures get equal names, so leaks are visible.

    The hash is of the 8-bit picture, so float rounding cannot hide a repeat.
    """
    codes = np.ascontiguousarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return f"{prefix}-{hashlib.sha256(str(codes.shape).encode() + codes.tobytes()).hexdigest()[:12]}"


def count_repeats(stimulus_id: np.ndarray) -> np.ndarray:
    """Count, for each trial, how often its stimulus was shown before: int array (n_trials,)."""
    seen: dict[str, int] = {}
    out = np.empty(len(stimulus_id), np.int64)
    for i, key in enumerate(stimulus_id):
        out[i] = seen.get(key, 0)
        seen[key] = out[i] + 1
    return out


def pick_subject(wanted: str | None, found: Sequence[str], root: Path) -> str:
    """Return the wanted subject, or the first; ``1`` and ``sub-1`` match ``sub-01`` and ``sub001``."""
    if wanted is None:
        return found[0]
    if wanted in found:
        return wanted
    number = _number(str(wanted))
    same = [f for f in found if number is not None and _number(f) == number]
    if len(same) == 1:
        return same[0]
    raise InputError(f"subject {wanted!r} is not in {root}; found: {', '.join(found)}")


def _number(name: str) -> int | None:
    """Return the number that is a subject's whole name, but for ``sub-``, ``sub``, ``subj`` or ``S``."""
    match = re.fullmatch(r"(?:sub-?|subj-?|S)?([0-9]+)", name)
    return int(match[1]) if match else None
