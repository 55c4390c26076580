"""Training trials of several subjects for the encoder, and the pictures they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from brainit.errors import InputError
from brainit.subject import Subject
from brainit.voxels.scaling import VoxelScaler
from brainit.voxels.trials import FEWEST, VoxelTrials, each
from brainit.voxels.universal.config import EncoderConfig


def collect(subjects: Sequence[Subject]) -> tuple[dict[str, VoxelTrials], list[str]]:
    """Take the training trials of every subject, repeats averaged, and number the pictures shown.

    Returns
    -------
    trials : dict of VoxelTrials by subject
    ids : list of str
        Stimulus of each picture row; the caller stacks the pictures in this order.

    Raises
    ------
    InputError
        No subject, two of one name, data without pictures, or too few trials.
    """
    number: dict[str, int] = {}
    trials: dict[str, VoxelTrials] = {}
    for subject in each(subjects):
        if subject.stimuli is None:
            raise InputError(
                f"dataset {subject.dataset!r} does not say which picture was shown when, and a voxel encoder "
                "learns from pictures; choose another dataset (brainlab data list)"
            )
        train = subject.part("train").mean_over_repeats()
        if train.n_trials < FEWEST:
            raise InputError(
                f"subject {subject.name!r} has {train.n_trials} training pictures; a voxel encoder needs at "
                f"least {FEWEST}"
            )
        rows = np.array([number.setdefault(str(key), len(number)) for key in train.stimulus_id], np.int64)
        scaler = VoxelScaler.fit(train.betas)
        trials[subject.name] = VoxelTrials(scaler.apply(train.betas), rows, scaler)
    return trials, list(number)


def held_pictures(trials: Mapping[str, VoxelTrials], config: EncoderConfig) -> np.ndarray:
    """Choose the pictures held out for validation, the same for all subjects: sorted rows."""
    shown = np.unique(np.concatenate([own.rows for own in trials.values()]))
    count = round(config.validation * len(shown))
    if config.validation:
        count = min(max(count, 2), len(shown) - 2)
    order = np.random.default_rng(config.seed).permutation(shown)
    return np.sort(order[:count])


def batches(
    trials: Mapping[str, np.ndarray], batch: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every trial number of every subject once, in batches of one subject, shuffled."""
    cut = []
    for name, numbers in trials.items():
        order = rng.permutation(numbers)
        cut += [(name, order[i : i + batch]) for i in range(0, len(order), batch)]
    for index in rng.permutation(len(cut)):
        yield cut[index]
