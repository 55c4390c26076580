"""One response amplitude a block from 4D BOLD, by a general linear model (nilearn.glm)."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainit.errors import InputError, MissingDataError


@dataclass(frozen=True)
class Event:
    """Something shown from ``onset`` for ``duration`` seconds."""

    onset: float
    duration: float
    trial_type: str


def read_events(path: Path, known: Collection[str] | None = None) -> list[Event]:
    """Read a BIDS ``events.tsv`` with columns onset, duration, trial_type; rest blocks are left out.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        A column is missing, a time is not a number, there are no events, or a trial type is not in ``known``.
    """
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; every run needs its events")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not a text file; expected tab-separated onset, duration, trial_type"
        ) from error
    if not rows:
        raise InputError(f"{path} holds no events; a run without events cannot be used: remove its folder")
    missing = [k for k in ("onset", "duration", "trial_type") if k not in rows[0]]
    if missing:
        raise InputError(
            f"{path}: column {', '.join(missing)} is missing; found: {', '.join(map(str, rows[0]))}"
        )
    events = []
    for line, row in enumerate(rows, start=2):
        try:
            event = Event(float(row["onset"]), float(row["duration"]), str(row["trial_type"]))
        except (TypeError, ValueError):
            event = Event(math.nan, math.nan, "")
        if not (math.isfinite(event.onset) and event.onset >= 0 and 0 <= event.duration < math.inf):
            raise InputError(
                f"{path} line {line}: onset {row['onset']!r}, duration {row['duration']!r}; "
                f"allowed: seconds from the run's start, not negative"
            )
        if event.trial_type == "rest":
            continue
        if known is not None and event.trial_type not in known:
            raise InputError(
                f"{path} line {line}: unknown trial_type {event.trial_type!r}; "
                f"allowed: {', '.join(sorted(known))}, rest"
            )
        events.append(event)
    if not events:
        raise InputError(
            f"{path} holds nothing but rest; a run without events cannot be used: remove its folder"
        )
    return events


def block_betas(
    series: np.ndarray,
    events: Sequence[Event],
    repetition_time: float,
    where: str,
    *,
    hrf: str = "glover",
    noise: str = "ols",
    high_pass: float = 1 / 128,
) -> np.ndarray:
    """Fit one regressor a block and return its amplitude in percent of the voxel's mean.

    The design holds each block convolved with the haemodynamic response, cosine drifts and a constant.

    Parameters
    ----------
    series : array of shape (n_volumes, n_voxels)
    events : sequence of Event
    repetition_time : float
        Seconds between volumes.
    where : str
        Name of the run, for messages.
    hrf : {"glover", "spm"}
    noise : {"ols", "ar1"}
    high_pass : float
        Cut-off of the drifts in Hz.

    Returns
    -------
    float32 array of shape (n_events, n_voxels)
        A voxel whose mean is 0 gets 0.

    Raises
    ------
    InputError
        An event ends after the run, or there are too few volumes for the design.
    """
    import pandas
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    length = len(series) * repetition_time
    for event in events:
        # a block may end with the last volume; rounding of onsets must not refuse it
        if event.onset + event.duration > length + 0.5 * repetition_time:
            raise InputError(
                f"{where}: event {event.trial_type!r} at {event.onset:g} s ends at "
                f"{event.onset + event.duration:g} s, after the run's end at {length:g} s; correct the events"
            )
    names = [f"block{i:03d}" for i in range(len(events))]
    table = pandas.DataFrame(
        {"onset": [e.onset for e in events], "duration": [e.duration for e in events], "trial_type": names}
    )
    times = np.arange(len(series)) * repetition_time
    design = make_first_level_design_matrix(
        times, table, hrf_model=hrf, drift_model="cosine", high_pass=high_pass
    )
    if len(series) <= design.shape[1]:
        raise InputError(
            f"{where}: {len(series)} volumes for {design.shape[1]} regressors; needed: a longer run"
        )
    mean = series.mean(0, dtype=np.float64)
    alive = np.abs(mean) > 1e-6
    percent = np.zeros(series.shape, np.float64)
    percent[:, alive] = (series[:, alive] / mean[alive] - 1) * 100
    codes, fits = run_glm(percent, design.to_numpy(), noise_model=noise)
    theta = np.zeros((design.shape[1], series.shape[1]))
    for code, fit in fits.items():
        theta[:, codes == code] = fit.theta
    columns = [design.columns.get_loc(name) for name in names]
    return theta[columns].astype(np.float32)
