"""Look at a folder before any long work and say what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brainit.datasets.registry import _existing, card
from brainit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from brainit.subject import Subject


_APART = 5.0  # times the spread of training trials that no group of trials differs by in one unit
_MANY = 20  # pictures from which intervals are bearable
_FEWEST = 4  # trials that have a spread
_TOO_LARGE = 10.0  # times the typical trial of a session


@dataclass(frozen=True)
class Finding:
    """One thing that ``check`` found: ``severity`` is "error", "warning" or "info"."""

    severity: str
    message: str


Needs = Callable[["Subject"], Iterable[str]]


def check(
    name: str,
    root: str | os.PathLike[str] | None = None,
    subject: str | None = None,
    needs: Needs = lambda _: (),
    **options: Any,
) -> list[Finding]:
    """Read the subjects of a dataset and list what is wrong, worst first.

    Parameters
    ----------
    name : str
        One of ``list_datasets()``.
    root : path, optional
        Folder or file of the dataset.
    subject : str, optional
        Default all of them.
    needs : callable
        Given a subject that could be read, names what is missing for what it is meant for; each is an error.
    **options
        As for ``open``.

    Returns
    -------
    list of Finding
        Empty of errors where the dataset can be used.
    """
    entry = card(name)
    found: list[Finding] = []
    try:
        from brainit.datasets.files.clean import pick_subject

        path = _existing(entry, root)
        adapter = entry.adapter()
        if not path.exists():
            return [Finding("info", f"dataset {name!r}: nothing in {path} yet; {entry.how}")]
        entry.check_options(options)
        names = adapter.subjects(path)
        if subject is not None:
            names = [pick_subject(subject, names, path)]
        for extra in getattr(adapter, "check", lambda _: [])(path):
            found.append(extra)
    except InputError as error:
        return [Finding("error", str(error))]
    from brainit.datasets.leaks import leaks_by_others
    from brainit.io import fingerprint

    several, seen = [], dict[str, str]()
    for subject_name in names:
        try:
            loaded = adapter.load(path, subject_name, **options)
            found += check_subject(loaded)
            found += [Finding("error", f"{name} {subject_name}: {line}") for line in needs(loaded)]
            other = seen.setdefault(fingerprint(None, [loaded.betas]), subject_name)
            if other != subject_name:
                found.append(
                    Finding(
                        "warning", f"{name}: {other} and {subject_name} have the same betas: is one a copy?"
                    )
                )
            several.append(loaded.keep_voxels([0]))  # names and pictures are compared, not betas
        except InputError as error:
            found.append(Finding("error", f"{subject_name}: {error}"))
    found += [Finding("error", line) for line in leaks_by_others(several)]
    rank = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda f: rank[f.severity])


def _shown(subject: Subject) -> str:
    """Say in how many sessions, and how often test pictures were shown: whether files were read as meant."""
    import numpy as np

    sessions = len(np.unique(subject.session))
    _, times = np.unique(subject.stimulus_id[subject.split == "test"], return_counts=True)
    said = f" in {sessions} sessions" if sessions > 1 else ""
    if len(times) and times.max() > 1:
        often = f"{times.min()}" if times.min() == times.max() else f"{times.min()} to {times.max()}"
        said += f"; each of {len(times)} test pictures was shown {often} times"
    return said


def check_subject(subject: Subject) -> list[Finding]:
    """List what a report or a model should know about a subject that could be read."""
    import numpy as np

    from brainit.datasets.leaks import find_leaks

    who = f"{subject.dataset} {subject.name}"
    n_train, n_test = (int((subject.split == s).sum()) for s in ("train", "test"))
    places = "places known" if subject.has_places else "places not known"
    found = [
        Finding(
            "info",
            f"{who}: {subject.n_voxels} voxels ({places}), {n_train} training and {n_test} test trials"
            + _shown(subject),
        )
    ]
    found += [Finding("warning", line) for line in subject.info.get("warnings", ())]
    if n_train < 2 or n_test < 1:
        found.append(
            Finding("error", f"{who}: {n_train} training and {n_test} test trials; needed: 2 and 1 or more")
        )
        return found
    shown = len(np.unique(subject.stimulus_id[subject.split == "test"]))  # repeats are averaged
    if subject.stimuli is not None and shown < _MANY:
        found.append(
            Finding("warning", f"{who}: only {shown} test pictures; scores will have wide intervals")
        )
    elif n_test < _MANY:
        found.append(Finding("warning", f"{who}: only {n_test} test trials; scores will have wide intervals"))
    if not np.isfinite(subject.betas).all():
        found.append(Finding("error", f"{who}: betas hold NaN or infinite values"))
    runs = np.unique(np.stack([subject.session, subject.run], 1), axis=0, return_counts=True)[1]
    if runs.min() < 0.5 * np.median(runs):
        found.append(
            Finding("warning", f"{who}: a run has {runs.min()} trials where {int(np.median(runs))} are usual")
        )
    found += [Finding("warning", f"{who}: {line}") for line in (*odd_betas(subject), *odd_names(subject))]
    leaks = find_leaks(subject)
    if leaks.leak_test_in_train:
        found.append(Finding("error", f"{who}: {leaks.line()}"))
    else:
        found.append(Finding("info", f"{who}: {leaks.line()}"))
    return found


def odd_names(subject: Subject) -> list[str]:
    """List what names of stimuli should not be: several of one picture, or one of several categories."""
    import numpy as np

    from brainit.datasets.leaks import content

    odd, names = [], subject.stimulus_id.astype(str)
    for split, harm in (
        ("test", "their trials are not averaged, and each counts as wrong where the other is found"),
        ("train", "trials that are left out to choose by may then show what was learned from"),
    ):
        ids = list(dict.fromkeys(names[subject.split == split].tolist()))
        if subject.stimuli is None or not ids:
            continue
        first: dict[bytes, str] = {}
        again = [(first[k], i) for i in ids if first.setdefault(k := content(subject.stimuli[i]), i) != i]
        if again:
            odd.append(
                f"{len(again)} of {len(ids)} {split} pictures are there under another name too (first: "
                f"{again[0][0]} and {again[0][1]}): {harm}; give a picture one stimulus_id"
            )
    if subject.stimuli is not None:
        ids = list(dict.fromkeys(names[subject.split == "test"].tolist()))
        flat = [i for i in ids if np.ptp(subject.stimuli[i]) == 0]
        if flat:
            odd.append(
                f"{len(flat)} of {len(ids)} test pictures have one value everywhere (first: {flat[0]}): "
                "nothing correlates with them, and that counts as 0"
            )
    if subject.labels is not None:
        pairs = np.unique(np.stack([names, subject.labels.astype(str)], 1), axis=0)
        kinds, count = np.unique(pairs[:, 0], return_counts=True)
        if (count > 1).any():
            which = kinds[count > 1][0]
            said = " and ".join(pairs[pairs[:, 0] == which, 1][:2].tolist())
            odd.append(
                f"{int((count > 1).sum())} of {len(kinds)} stimuli are of several categories (first: "
                f"{which}, {said}): are labels moved by a trial?"
            )
    return odd


def odd_betas(subject: Subject) -> list[str]:
    """List what betas should not be: copies, far too large, repeats that differ, BOLD before any model."""
    import numpy as np

    from brainit.datasets.files.ceiling import repeats_agree

    odd = []
    train, test = (subject.betas[subject.split == s] for s in ("train", "test"))
    known = {row.tobytes() for row in train}
    copies = sum(row.tobytes() in known for row in test)
    if copies:
        odd.append(f"{copies} of {len(test)} test trials have exactly the betas of a training trial")
    for rows, what in ((train, "training"), (test, "test")):
        again = len(rows) - len({row.tobytes() for row in rows})
        if again:
            odd.append(f"{again} of {len(rows)} {what} trials have exactly the betas of another {what} trial")
    spread = train.std(0, dtype=np.float64)
    odd += _other_units(subject, train, test)
    odd += _too_large(subject)
    if repeats_agree(subject.betas, subject.stimulus_id, subject.session) is False:
        odd.append(
            "repeats of a picture are no more alike than trials of different ones: is the order of events "
            "that of the volumes? (or voxels that say nothing of the pictures)"
        )
    ratio = np.abs(train.mean(0, dtype=np.float64)) / np.maximum(spread, 1e-12)
    if np.median(ratio) > 10:
        odd.append(
            f"the typical voxel's mean is {np.median(ratio):.0f} times its spread over trials: this "
            "looks like BOLD, not like betas"
        )
    return odd


def _too_large(subject: Subject) -> list[str]:
    """List trials far from the others of their session, whose scale they decide; by 2,000 voxels at most."""
    import numpy as np

    voxels = np.linspace(0, subject.n_voxels - 1, min(2000, subject.n_voxels)).astype(int)
    odd = np.zeros(subject.n_trials, bool)
    for session in np.unique(subject.session):
        here = np.flatnonzero(subject.session == session)
        x = subject.betas[np.ix_(here, voxels)].astype(np.float64)
        size = np.sqrt(((x - np.median(x, 0)) ** 2).sum(1))
        odd[here] = size > _TOO_LARGE * np.median(size)
    if not odd.any():
        return []
    k = int(np.argmax(odd))
    first = f"session {subject.session[k]}, run {subject.run[k]}, stimulus {subject.stimulus_id[k]}"
    return [
        f"{int(odd.sum())} of {len(odd)} trials lie more than {_TOO_LARGE:g} times as far out as the typical "
        f"trial of their session (first: {first}): a failed trial? it decides by what the session is scaled"
    ]


def _other_units(subject: Subject, train: np.ndarray, test: np.ndarray) -> list[str]:
    """List groups of trials whose betas are far from the training trials' in mean or spread."""
    import numpy as np

    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    changes = spread > 0
    if not changes.any():
        return []
    groups = {"test trials": test}
    sessions = np.unique(subject.session)
    if len(sessions) > 1:
        groups |= {f"session {s}": subject.betas[subject.session == s] for s in sessions}
    odd = []
    for what, rows in groups.items():
        if len(rows) < _FEWEST:
            continue
        wider = float(np.median(rows.std(0, dtype=np.float64)[changes] / spread[changes]))
        moved = float(np.median(np.abs(rows.mean(0, dtype=np.float64) - mean)[changes] / spread[changes]))
        if not 1 / _APART < wider < _APART or moved > _APART:
            odd.append(
                f"betas of {what} have {wider:.3g} times the spread of training trials and lie {moved:.3g} "
                "spreads away: other units, or scaled apart?"
            )
    return odd
