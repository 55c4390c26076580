"""Which data a run was made from: what it has worked out already is never mixed with other data.

A data file may be corrected, or another put in its place, under the same name. The run's settings are then
the same and its steps lie ready, but they are of trials that are no longer there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from brainit import datasets
from brainit.datasets.files.ranges import to_codes
from brainit.io import fingerprint
from brainit.subject import Subject
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError, MissingDataError
from lab.files import write_json
from lab.runs.settings import read_settings

FILE = "data.json"
"""In a run's folder: a short hash for each subject."""


def marks(subjects: Iterable[Subject]) -> dict[str, str]:
    """Return a short hash of each subject's trials and pictures, and one of where its voxels are, by name."""
    return {subject.name: _mark(subject) for subject in subjects}


def claim(folder: Path, known: dict[str, str]) -> None:
    """Note in a run's folder which data it is made from, or refuse data that are not those noted there.

    Raises
    ------
    InputError
        A subject's data have changed, or the subjects are others.
    """
    there = _read(folder)
    if there is None:
        write_json(folder / FILE, known)
        return
    if set(there) != set(known):
        raise _others(folder, there, known)
    changed = [name for name in sorted(there | known) if not _same(there.get(name), known.get(name))]
    if changed:
        raise _other(folder, changed[0])


def agrees(folder: Path, subject: Subject) -> bool | None:
    """Whether a run's folder was made from these data of a subject; None where it says nothing of it."""
    there = (_read(folder) or {}).get(subject.name)
    return None if there is None else _same(there, _mark(subject))


def check(folder: Path, subject: Subject) -> None:
    """Refuse a subject whose data are not those that the run in ``folder`` was made from.

    Raises
    ------
    InputError
        They have changed.
    """
    there = _read(folder)
    if there is not None and subject.name not in there:
        raise _others(folder, there, [subject.name])
    if there is not None and not _same(there.get(subject.name), _mark(subject)):
        raise _other(folder, subject.name)


def where_it_lay(folder: Path, config: ReconstructConfig) -> ReconstructConfig:
    """Return settings with the dataset's place as the run in ``folder`` knows it, where it noted its data.

    Data that were moved are the same data: `claim` and `check_finished` judge them by content.
    """
    file = folder / "config.yaml"
    if _read(folder) is None or not file.is_file():
        return config
    return config.model_copy(update={"root": read_settings(file).get("root")})


def check_finished(folder: Path, config: ReconstructConfig) -> None:
    """Refuse a finished run whose data were changed after it was finished; data that are gone say nothing.

    They are read only where a file came to lie there after the run, whatever the file's own date, and where
    they were moved.

    Raises
    ------
    InputError
        They have changed, or cannot be read any more.
    MissingDataError
        The place that they were moved to is empty.
    """
    if where_it_lay(folder, config).root != config.root:
        check(folder, _opened(config, config.root))
        return
    root = datasets.default_root(config.dataset) if config.root is None else Path(config.root)
    done = (folder / "done.json").stat()
    finished = min(done.st_mtime, done.st_ctime)  # a copied folder is younger than its run
    if _read(folder) is None or not any(p.stat().st_ctime >= finished for p in _files(root)):
        return
    try:
        check(folder, _opened(config, root))
    except MissingDataError:
        return


def _opened(config: ReconstructConfig, root: Path | str | None) -> Subject:
    """Read a run's subject as it is there; simulated ones are not made for it."""
    options = dict(config.options)
    if config.dataset == "simulated":
        from brainit.datasets.simulated.write import DESCRIPTION
        from lab.decoding.simulated import asked_for

        asked_for(options)
        place = datasets.default_root("simulated") if root is None else Path(root).expanduser()
        if not (place / DESCRIPTION).is_file():
            raise MissingDataError(f"{place} holds no simulated subjects; give the --root that they moved to")
    return datasets.open(config.dataset, root, config.subject, **options)


def _files(root: Path) -> Iterable[Path]:
    return [p for p in (root, *(root.rglob("*") if root.is_dir() else ())) if p.is_file()]


def _mark(subject: Subject) -> str:
    names = list(dict.fromkeys(subject.stimulus_id.astype(str).tolist()))
    shown = () if subject.stimuli is None else [to_codes(np.asarray(subject.stimuli[name])) for name in names]
    said = [subject.stimulus_id.astype(str).tolist(), subject.split.astype(str).tolist()]
    said += [] if subject.labels is None else [subject.labels.astype(str).tolist()]
    trials = fingerprint(said, [subject.betas, subject.session, subject.run, *shown])[:16]
    places = np.nan_to_num(np.asarray(subject.xyz, np.float32), nan=-1e9)  # unknown is one place
    regions = sorted(subject.roi)
    where = fingerprint(regions, [places, *(np.asarray(subject.roi[name], bool) for name in regions)])[:16]
    return f"{trials}-{where}"


def _same(there: str | None, known: str | None) -> bool:
    """Whether two hashes agree; one of before places were noted says nothing of them."""
    if there is None or known is None:
        return False
    return there == known or ("-" not in there and there == known.partition("-")[0])


def _read(folder: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:  # a new folder, or one of before this was noted
        return None
    except ValueError as error:
        raise InputError(f"{folder / FILE} is damaged ({error}); choose another --out") from None


def _others(folder: Path, there: Iterable[str], known: Iterable[str]) -> InputError:
    return InputError(
        f"{folder} was made from {_names(there)}, not from {_names(known)}; choose another --out (a new run)"
    )


def _names(subjects: Iterable[str]) -> str:
    some = sorted(subjects)
    return f"subject{'s' if len(some) > 1 else ''} {', '.join(some)}"


def _other(folder: Path, name: str) -> InputError:
    return InputError(
        f"{folder} was made from other data: subject {name!r} has changed since; put the former data back, "
        "or choose another --out (a new run)"
    )
