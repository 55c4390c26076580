"""What a run will need of its data, found before any of it is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainit.datasets.files import pictures
from brainit.metrics.pixels import SSIM_WINDOW
from brainit.subject import Subject
from lab.decoding.encoder.correlation import check_encoder
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError, MissingDataError

_FEWEST_TRAINED = 4  # distinct stimuli that Brain-IT's networks need
_FEWEST_POSTERIOR = 8  # distinct pictures that the posterior is cross-validated on


def check_needs(config: ReconstructConfig, subject: Subject) -> None:
    """Raise InputError for the first thing that a run of these settings would miss."""
    for line in unmet(config, subject):
        raise InputError(f"subject {subject.name!r} of {subject.dataset}: {line}")
    if config.voxel_encoder is not None and subject.stimuli is not None:
        check_encoder(Path(config.voxel_encoder), subject)
    if config.external_stimuli is not None:
        _check_external(config.external, Path(config.external_stimuli))


def _check_external(n: int, source: Path) -> None:
    """Refuse pictures that could not be drawn, which would be found after the folder is claimed."""
    if n == 0:
        raise InputError(
            f"external_stimuli is {source} and external is 0, so none is learned from: give --external"
        )
    if not source.exists():
        raise MissingDataError(
            f"external_stimuli: {source} does not exist; give a folder, parquet file or .npz"
        )
    if (found := pictures.count(source)) < n:
        raise InputError(
            f"external_stimuli: {source} holds {found} pictures; give --external {found} or less"
        )


def unmet(config: ReconstructConfig, subject: Subject) -> Iterator[str]:
    """Yield, one line each, what the data lack for a run of these settings.

    Parameters
    ----------
    config : ReconstructConfig
    subject : Subject
        The one to be decoded.
    """
    yield from _pictures(config, subject) if subject.stimuli is not None else _categories(config, subject)


def _pictures(config: ReconstructConfig, subject: Subject) -> Iterator[str]:
    test, train = (np.unique(subject.stimulus_id[subject.split == s]) for s in ("test", "train"))
    for split, ids in (("train", train), ("test", test)):
        if not len(ids):
            yield f"no {split} trials; nothing to do"
            return
    if len(test) < 2:
        yield (
            f"{len(test)} test picture; scores need at least 2 to tell it from another, so move some "
            "training trials to the test split"
        )
    shape = np.shape(subject.stimuli[str(test[0])])  # type: ignore[index]
    if shape[0] != shape[1]:
        yield f"pictures are {shape[0]}x{shape[1]} pixels; the decoder draws squares: cut or pad them"
    if min(shape[:2]) < SSIM_WINDOW:
        yield (
            f"pictures are {shape[0]}x{shape[1]} pixels; the scores (SSIM) need {SSIM_WINDOW} a side: "
            "enlarge them before"
        )
    yield from _clusters(config, subject)
    looks = len({np.asarray(subject.stimuli[str(k)]).tobytes() for k in train})  # type: ignore[index]
    fewest = max(_FEWEST_TRAINED, config.brain.care.folds)
    if looks < fewest:
        yield (
            f"{looks} distinct training pictures; Brain-IT needs {fewest} or more with these settings: add "
            "trials of other pictures"
        )
    elif config.structure == "posterior" and looks < _FEWEST_POSTERIOR:
        yield (
            f"{looks} distinct training pictures; structure=posterior needs {_FEWEST_POSTERIOR} or more: add "
            "others, or choose --set structure=ridge"
        )


def _clusters(config: ReconstructConfig, subject: Subject) -> Iterator[str]:
    method = config.brain.clusters.method
    if config.network != "trained":
        return
    if method == "roi" and not subject.roi:
        yield "no regions are named, which brain.clusters.method=roi needs; choose profiles, kmeans or gmm"
    if method == "anatomical" and not subject.has_places:
        yield (
            "voxel positions are not known, which brain.clusters.method=anatomical needs; choose profiles, "
            "kmeans or gmm"
        )


def _categories(config: ReconstructConfig, subject: Subject) -> Iterator[str]:
    yield from _clusters(config, subject)
    if subject.labels is None:
        yield "neither pictures nor category labels; there is nothing to decode"
        return
    runs = len({(int(s), int(r)) for s, r in zip(subject.session, subject.run, strict=True)})
    kinds = len(np.unique(subject.labels))
    for count, what in ((runs, "run"), (kinds, "category")):
        if count < 2:
            yield f"{count} {what}; leaving one run out and naming categories needs 2 or more of each"
