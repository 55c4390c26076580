"""Values of voxels as NIfTI files on the grid of the subject's mask: scores, clusters, attention."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from brainit.errors import InputError
from brainit.io import replacing
from brainit.subject import Subject


def write_map(subject: Subject, values: np.ndarray, path: Path) -> Path:
    """Write one value a voxel, (n_voxels,), or several volumes, (n, n_voxels), as ``.nii.gz``.

    0 outside the mask; NaN stays NaN. The file is whole or not there, and equal values give equal bytes.

    Raises
    ------
    InputError
        The subject has no mask image, or another number of voxels.
    """
    if values.shape[-1] != subject.n_voxels:
        raise InputError(
            f"subject {subject.name!r} has {subject.n_voxels} voxels, the map {values.shape[-1]} values"
        )
    image = subject.to_image(values)
    image.header.set_xyzt_units("mm", "sec")
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
    return path


def write_clusters(subject: Subject, labels: np.ndarray, path: Path) -> Path:
    """Write clusters as a label image: cluster k is k + 1, so that 0 stays outside the brain."""
    return write_map(subject, (np.asarray(labels) + 1).astype(np.int32), path)


def mean_attention(attend: Callable[[int], np.ndarray], outputs: Iterable[int]) -> np.ndarray:
    """Average where a network looks over trials and outputs: float64 (n_voxels,), 1 is an even share.

    Parameters
    ----------
    attend : callable
        Output number to shares of voxels, (n_trials, n_voxels) with rows of sum 1, such as
        ``lambda token: decoder.attention_map(subject, token)``.
    outputs : iterable of int

    Raises
    ------
    InputError
        There is no output to look at.
    """
    shares = [np.asarray(attend(number), np.float64).mean(0) for number in outputs]
    if not shares:
        raise InputError("attention over voxels: no output was named; give at least one")
    mean = np.mean(shares, 0)
    return mean * mean.size
