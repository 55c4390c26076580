"""Training trials of several subjects, standardised and cut into folds; nothing here sees a test trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from brainit.errors import InputError
from brainit.subject import Subject
from brainit.training.targets import TargetTable
from brainit.voxels.encoder import VoxelEncoder, residual_noise
from brainit.voxels.scaling import VoxelScaler
from brainit.voxels.trials import FEWEST, VoxelTrials, each


@dataclass(frozen=True)
class TrainingTrials(VoxelTrials):
    """Trials of one subject that may be learned from; rows are those of the targets.

    Parameters
    ----------
    group : str array of shape (n_trials,)
        What must not be split between training and validation: the stimulus, or the run in category decoding.
    """

    group: np.ndarray


def prepare(
    subjects: Sequence[Subject], table: TargetTable, *, key: str = "stimulus_id", average_repeats: bool = True
) -> dict[str, TrainingTrials]:
    """Take the training trials of every subject and standardise them.

    Parameters
    ----------
    subjects : sequence of Subject
    table : TargetTable
        Keyed by stimulus, or by category where ``key`` is "labels".
    key : {"stimulus_id", "labels"}
    average_repeats : bool
        Average trials of the same stimulus (ignored for categories).
    """
    if key not in ("stimulus_id", "labels"):
        raise InputError(f"targets are keyed by 'stimulus_id' or 'labels', got {key!r}")
    out: dict[str, TrainingTrials] = {}
    for subject in each(subjects):
        train = subject.part("train")
        if key == "stimulus_id" and average_repeats:
            train = train.mean_over_repeats()
        if train.n_trials < FEWEST:
            raise InputError(
                f"subject {subject.name!r} has {train.n_trials} training trials; Brain-IT needs at least "
                f"{FEWEST}"
            )
        names = getattr(train, key)
        if names is None:
            raise InputError(
                f"subject {subject.name!r} has no category labels; use targets keyed by stimulus_id"
            )
        scaler = VoxelScaler.fit(train.betas)
        out[subject.name] = TrainingTrials(
            scaler.apply(train.betas), table.rows(names), scaler, _groups(train, key).astype(str)
        )
    return out


def _groups(train: Subject, key: str) -> np.ndarray:
    if key == "stimulus_id":
        return train.stimulus_id
    if len(np.unique(train.run)) > 1:
        return np.char.add(np.char.add(train.session.astype(str), "/"), train.run.astype(str))
    return np.arange(train.n_trials)


def fold_groups(
    trials: Mapping[str, TrainingTrials], n_folds: int, share: float, seed: int
) -> list[set[str]]:
    """Choose validation groups for each network, the same for all subjects.

    With one fold, a ``share`` of the groups; with more, disjoint folds that together cover all groups.
    """
    groups = np.unique(np.concatenate([own.group for own in trials.values()]))
    if len(groups) < max(2, n_folds):
        raise InputError(
            f"{len(groups)} different training stimuli are too few for {max(n_folds, 2)} folds; "
            "use fewer folds"
        )
    order = np.random.default_rng(seed).permutation(groups)
    if n_folds == 1:
        return [set(order[: min(len(groups) - 1, max(1, round(share * len(groups))))].tolist())]
    return [set(part.tolist()) for part in np.array_split(order, n_folds)]


@dataclass(frozen=True)
class SyntheticTrials:
    """External pictures with fMRI that the encoder predicts on the fly.

    Parameters
    ----------
    encoder : VoxelEncoder
    coordinates : float32 array of shape (n_pictures, rank)
        Pictures in the encoder's space (``encoder.coordinates``).
    targets : float32 tensor of shape (n_pictures, n_values)
        Standardised, flat.
    noise : float
        Multiplies the encoder's residual noise.
    device : str
        Where responses are computed; random numbers are drawn on the CPU.
    """

    encoder: VoxelEncoder
    coordinates: np.ndarray
    targets: torch.Tensor
    noise: float = 1.0
    device: str = "cpu"
    _there: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def draw(self, n: int, subject: str, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw n trials: betas (n, n_voxels) on the device and targets (n, n_values) on the CPU."""
        if subject not in self._there:
            own = (self.encoder.embeddings[subject], self.encoder.residuals[subject])
            self._there[subject] = tuple(torch.from_numpy(a).to(self.device) for a in own)
        embeddings, residual = self._there[subject]
        rows = rng.integers(len(self.coordinates), size=n)
        betas = torch.from_numpy(self.coordinates[rows]).to(self.device) @ embeddings.T
        betas = betas + self.noise * residual_noise(residual, n, rng)
        return betas, self.targets[torch.from_numpy(rows)]
