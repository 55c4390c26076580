"""Trials that may be learned from: standardised responses, and what each of them showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from brainit.errors import InputError
from brainit.subject import Subject
from brainit.voxels.scaling import VoxelScaler

FEWEST = 4
"""Training trials of a subject, at least."""


@dataclass(frozen=True)
class VoxelTrials:
    """Trials of one subject.

    Parameters
    ----------
    betas : float32 array of shape (n_trials, n_voxels)
        z-scored.
    rows : int64 array of shape (n_trials,)
        Row of each trial's picture, or target.
    scaler : VoxelScaler
        How raw betas become these; test trials go through it as well.
    """

    betas: np.ndarray
    rows: np.ndarray
    scaler: VoxelScaler


def each(subjects: Sequence[Subject]) -> Iterator[Subject]:
    """Yield every subject.

    Raises
    ------
    InputError
        There is none, or two have one name, or names that are one where parameters are named.
    """
    if not subjects:
        raise InputError("no subjects were given; give at least one")
    names: set[str] = set()
    for subject in subjects:
        key = subject.name.replace(".", "_")  # torch allows no dot in it
        if key in names:
            raise InputError(
                f"two subjects are called {subject.name!r} (a dot counts as _); give each its own name"
            )
        names.add(key)
        yield subject
