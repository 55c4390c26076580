"""A subject of one session without voxel positions, as files of bare arrays describe one."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainit.datasets.files import clean
from brainit.subject import Subject


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
