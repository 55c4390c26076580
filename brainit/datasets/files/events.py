"""What was shown when: blocks of a run of BOLD, and trials of a file of betas."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from brainit.datasets.files import clean
from brainit.datasets.files.text import Row, read_table
from brainit.errors import InputError

_DIGITS = 9


@dataclass(frozen=True)
class Event:
    """Something shown from ``onset`` for ``duration`` seconds."""

    onset: float
    duration: float
    trial_type: str


@dataclass(frozen=True)
class Trial:
    """One volume of betas: its stimulus, split, label (empty where missing), session and run.

    ``onset`` is in seconds, NaN where it is not given.
    """

    stimulus_id: str
    split: str
    label: str
    session: int
    run: int
    onset: float = math.nan


def read_events(path: Path, known: Collection[str] | None = None) -> list[Event]:
    """Read a BIDS ``events.tsv`` with columns onset, duration, trial_type; rest blocks are left out.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        A column is missing, a time is not a number, there are no events, or a trial type is not in ``known``.
    """
    rows = read_table(path, ("onset", "duration", "trial_type"), "every run needs its events")
    if not rows:
        raise InputError(f"{path} holds no events; a run without events cannot be used: remove its folder")
    events = []
    for row in rows:
        try:
            event = Event(row.number("onset"), row.number("duration"), row.text("trial_type"))
        except InputError:
            event = Event(math.nan, math.nan, "")
        if not (math.isfinite(event.onset) and event.onset >= 0 and 0 <= event.duration < math.inf):
            raise InputError(
                f"{row.where}: onset {row['onset']!r}, duration {row['duration']!r}; "
                f"allowed: seconds from the run's start, not negative"
            )
        if event.trial_type == "rest":
            continue
        if not event.trial_type:
            raise InputError(f"{row.where}: trial_type is missing (n/a); name the event or remove its line")
        if known is not None and event.trial_type not in known:
            raise InputError(
                f"{row.where}: unknown trial_type {event.trial_type!r}; "
                f"allowed: {', '.join(sorted(known))}, rest"
            )
        events.append(event)
    if not events:
        raise InputError(
            f"{path} holds nothing but rest; a run without events cannot be used: remove its folder"
        )
    return events


def read_trials(path: Path, session: int) -> list[Trial]:
    """Read the events of a file of betas: stimulus_id, split, and optionally trial_type and run.

    Parameters
    ----------
    path : Path
    session : int
        Number of the session that the file belongs to.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        A column or a value is missing, or not one of those allowed.
    """
    rows = read_table(path, ("stimulus_id", "split"), "every file of betas needs its events")
    if not rows:
        raise InputError(f"{path} holds no events; one row a volume is needed")
    out = []
    for row in rows:
        split = row.text("split")
        if split not in ("train", "test"):
            raise InputError(f"{row.where}: split is {row['split']!r}; allowed: train, test")
        run = row.text("run") or entity(path.name, "run") or "1"
        if not run.isdecimal() or len(run) > _DIGITS:
            raise InputError(
                f"{row.where}: run is {run!r}; allowed: a whole number of up to {_DIGITS} digits"
            )
        if not row.text("stimulus_id"):
            raise InputError(f"{row.where} has no stimulus_id; every volume needs one")
        name = clean.as_name(row.text("stimulus_id"))
        out.append(Trial(name, split, row.text("trial_type"), session, int(run), _onset(row)))
    return out


def _onset(row: Row) -> float:
    """Return seconds, or NaN: betas were found by somebody's model, which needs them no more."""
    try:
        return row.number("onset") if row.text("onset") else math.nan
    except InputError:
        return math.nan


def out_of_order(trials: Sequence[Trial], where: str) -> list[str]:
    """Return a warning where onsets go back within a run: rows that were sorted stand beside other volumes.

    A run that begins anew is one step back; a table that was sorted by stimulus has one at every other row.
    """
    back = [k for k, (a, b) in enumerate(pairwise(trials), 2) if a.run == b.run and b.onset < a.onset]
    if len(back) <= len(trials) / 5:
        return []
    return [
        f"{where}: onsets go back at {len(back)} of {len(trials)} rows (first: row {back[0]}): are the rows "
        "in the order of the volumes, or sorted by something else?"
    ]


def entity(name: str, key: str) -> str:
    """Return the value of a BIDS entity in a file's name (``ses-01``: ``01``), empty where it has none."""
    match = re.search(rf"(?:^|_){key}-([A-Za-z0-9]+)", name)
    return match[1] if match else ""


def number_sessions(labels: Collection[str]) -> dict[str, int]:
    """Return a number for each session label: the number it is, or its place among labels that are names.

    Raises
    ------
    InputError
        Two labels are the same number (``1`` and ``01``).
    """
    ordered = sorted(set(labels))
    if not all(label.isdecimal() for label in ordered if label):
        return {label: k for k, label in enumerate(ordered, start=1)}
    clean.each_once(((str(int(label or 1)), f"ses-{label}" if label else "files without a session")
                     for label in ordered), "session")  # fmt: skip
    return {label: int(label or 1) for label in ordered}
