"""Category decoding through Brain-IT's tokens: each run predicted by a decoder trained on the others.

Where no pictures are known the tokens to predict are fixed orthogonal directions, one a category; a trial's
category is the one whose token the prediction correlates with most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from brainit.config import BrainITConfig
from brainit.errors import InputError
from brainit.progress import Progress, silent
from brainit.subject import Subject
from brainit.training.fitting import fit
from brainit.training.targets import category_targets, nearest_category

#: What is laid over the "few" preset: one trial a category and run is little, so each network is trained
#: briefly, on noisy betas with hidden voxels. Fixed beforehand, not by any score of this data.
CARE: Mapping[str, Mapping[str, Any]] = {
    "train": {"epochs": 5, "steps_per_epoch": 15, "patience": 3},
    "care": {"beta_noise": 0.5, "voxel_dropout": 0.2},
}


@dataclass(frozen=True)
class FoldPrediction:
    """What one fold says of its held-out trials.

    Parameters
    ----------
    trials : int64 array of shape (n_held,)
        Which trials of the subject they are.
    category : str array of shape (n_held,)
        Nearest category of Brain-IT's tokens (network and ridge, weighed on training runs).
    network : str array of shape (n_held,)
        The same from the networks alone.
    scores : float64 array of shape (n_held, n_categories)
        Correlation of Brain-IT's tokens with each category's token, categories in alphabetical order.
    cluster : int64 array of shape (n_voxels,)
        Cluster of each voxel in this fold.
    n_train : int
    weights : (float, float)
        Weight of ridge and of the networks in Brain-IT's tokens.
    """

    trials: np.ndarray
    category: np.ndarray
    network: np.ndarray
    scores: np.ndarray
    cluster: np.ndarray
    n_train: int
    weights: tuple[float, float]


def run_names(subject: Subject) -> np.ndarray:
    """Name each trial's run, ``run-3``, or ``ses-1-run-3`` where there are several sessions."""
    number = np.char.add("run-", subject.run.astype(str))
    if len(np.unique(subject.session)) == 1:
        return number
    return np.char.add(np.char.add(np.char.add("ses-", subject.session.astype(str)), "-"), number)


def predict_held_out(
    subject: Subject, run: str, config: BrainITConfig, progress: Progress = silent
) -> FoldPrediction:
    """Train on every other run and predict the category of each trial of ``run``.

    Parameters
    ----------
    subject : Subject
        With ``labels``; its own split is not looked at.
    run : str
        One of ``run_names(subject)``.
    config : BrainITConfig
    progress : callable

    Returns
    -------
    FoldPrediction

    Raises
    ------
    InputError
        No such run, no labels, or too few trials are left to train on.
    """
    names = run_names(subject)
    if subject.labels is None:
        raise InputError(f"subject {subject.name!r} has no category labels; there is nothing to decode")
    if run not in names:
        raise InputError(f"no run {run!r} in subject {subject.name!r}; known: {', '.join(np.unique(names))}")
    fold = replace(subject, split=np.where(names == run, "test", "train"))
    # every category's token is fixed beforehand, so that the table says nothing of the held-out run
    table = category_targets(subject.labels, seed=config.train.seed)
    decoder = fit([fold], table, config, key="labels", progress=progress)
    held = fold.part("test")
    category, scores = nearest_category(decoder.predict(held), table)
    network, _ = nearest_category(decoder.predict_network(held), table)
    return FoldPrediction(
        trials=np.flatnonzero(names == run),
        category=category,
        network=network,
        scores=scores,
        cluster=decoder.clusters.labels[subject.name],
        n_train=int((names != run).sum()),
        weights=next(iter(decoder.weights.values())),
    )
