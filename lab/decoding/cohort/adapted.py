"""The shipped network that all subjects share, adapted to one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brainit.io import fingerprint
from brainit.network.shared import SharedNetwork
from brainit.subject import Subject
from brainit.training.adapting import AdaptedSubject, adapt
from brainit.training.targets import TargetTable
from lab.decoding.data import zoo_targets
from lab.errors import InputError
from lab.files import write_json
from lab.progress import Progress


def network() -> SharedNetwork:
    """Return the shared network of the zoo, on the CPU.

    Raises
    ------
    MissingDataError
        Its weights are not there.
    """
    from lab import zoo

    return zoo.load("shared-64")


def adapted(
    subject: Subject,
    folder: Path | None,
    progress: Progress,
    device: str = "cpu",
    encoded: dict[str, TargetTable] | None = None,
    *,
    epochs: int = 0,
    seed: int = 0,
    own: SharedNetwork | None = None,
) -> AdaptedSubject:
    """Adapt the shared network, or read what ``folder`` holds of the same trials and settings.

    Parameters
    ----------
    encoded : dict, optional
        As for `lab.decoding.data.zoo_targets`.
    epochs : int
        Of training the voxel embeddings.
    own : SharedNetwork, optional
        Another network than the one that ships.

    Raises
    ------
    InputError
        ``folder`` holds a subject of other data or settings, or there are too few trials.
    """
    shared = own or network()
    train = subject.part("train")
    mark = fingerprint(
        [subject.name, epochs, seed, list(map(str, train.stimulus_id))],
        [train.betas, *(p.detach() for p in shared.parameters())],
    )
    known = None if folder is None else folder / "adapted.safetensors"
    if known is not None and known.is_file():
        found = AdaptedSubject.load(known, shared)
        if found.report.get("fingerprint") != mark:
            raise InputError(
                f"{folder} holds a subject adapted on other data or settings; delete it or choose another"
            )
        return found
    # in the pictures' order: subjects who saw the same ones share what was encoded
    ordered = train.select(np.argsort(train.stimulus_id, kind="stable"))
    table = zoo_targets([ordered], progress, device, encoded)
    found = adapt(shared, subject, table, epochs=epochs, seed=seed, progress=progress)
    found.report["fingerprint"] = mark  # type: ignore[index]
    if folder is not None:
        found.save(folder)
        write_json(folder / "adapted.json", dict(found.report))
        return AdaptedSubject.load(folder, shared)  # half precision, as in every later call
    return found
