"""Everybody of a dataset, such that no training trial shows what anybody is tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brainit import datasets
from brainit.datasets.findings import odd_betas, odd_names
from brainit.datasets.leaks import find_leaks
from brainit.subject import Subject
from lab.decoding import same_data
from lab.errors import InputError
from lab.progress import Progress


@dataclass(frozen=True)
class People:
    """Subjects of one dataset and what the leak check found.

    Parameters
    ----------
    subjects : list of Subject
        Training trials that show a test picture of any of them are left out.
    leak_line : str
        The worst finding over the subjects, each tested against what all learn from.
    warnings : tuple of str
        What is odd about anybody's data.
    marks : mapping of str to str
        Hash of each subject's data as they were read (`lab.decoding.same_data`).
    """

    subjects: list[Subject]
    leak_line: str
    warnings: tuple[str, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)


def open_people(
    dataset: str,
    root: str | None,
    names: Sequence[str],
    options: dict[str, Any],
    progress: Progress,
    before: Sequence[Subject] = (),
) -> People:
    """Read subjects of a dataset, by default all, and look for leaks.

    Parameters
    ----------
    before : sequence of Subject
        Whom an encoder that is started from has learned from: their training pictures count as well.

    Raises
    ------
    InputError
        An unknown subject, or one without pictures.
    """
    options = dict(options)
    if dataset == "simulated":
        from lab.decoding.simulated import asked_for, ensure_simulated

        root = str(ensure_simulated(root, progress=progress, **asked_for(options)))
    known = datasets.subjects(dataset, root)
    for name in names:
        if name not in known:
            raise InputError(f"{dataset} has no subject {name!r}; there are: {', '.join(known)}")
    found = []
    chosen = list(names) or known
    for index, name in enumerate(chosen):
        progress(index, len(chosen), f"reading {name}")
        subject = datasets.open(dataset, root, name, **options)
        if subject.stimuli is None:
            raise InputError(
                f"dataset {dataset!r} does not say which picture was shown when, and a voxel encoder learns "
                "from pictures; choose another dataset (brainlab data list)"
            )
        found.append(subject)
    tested = {str(key) for own in found for key in own.stimulus_id[own.split == "test"]}
    clean = [
        own.select((own.split == "test") | ~np.isin(own.stimulus_id.astype(str), list(tested)))
        for own in found
    ]
    reports = []
    for own in clean:
        others = [other.part("train") for other in (*clean, *before) if other is not own]
        reports.append(find_leaks(own, others=others))
    worst = max(reports, key=lambda report: report.leak_test_in_train)
    odd = [
        f"{own.name}: {said}"
        for own in found
        for said in (*own.info.get("warnings", ()), *odd_betas(own), *odd_names(own))
    ]
    return People(clean, worst.line(), tuple(odd), same_data.marks(found))
