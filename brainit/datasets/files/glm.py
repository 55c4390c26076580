"""One response amplitude a block from 4D BOLD, by a general linear model (nilearn.glm)."""

from __future__ import annotations

from collections.abc import Sequence
from warnings import catch_warnings, filterwarnings

import numpy as np

from brainit.datasets.files.events import Event
from brainit.errors import InputError

#: Condition number (columns of length 1) from which a design is called near-singular: blocks then share the
#: signal, and each one's amplitude is mostly noise. Blocks of half a minute apart have about 10.
_NEAR_SINGULAR = 100.0
#: Mean over temporal spread below which a series has no baseline; real BOLD has 20 to 200.
_NO_BASELINE = 1.0


def has_baseline(series: np.ndarray, where: str) -> np.ndarray:
    """Return which voxels have a mean that signal change can be a percentage of.

    Parameters
    ----------
    series : array of shape (n_volumes, n_voxels)
        Voxels with NaN count as having one; other checks speak of them.
    where : str
        Name of the run, for messages.

    Returns
    -------
    bool array of shape (n_voxels,)

    Raises
    ------
    InputError
        The typical voxel that changes has none: the mean was removed, or the series was scaled before.
    """
    mean, spread = series.mean(0, dtype=np.float64), series.std(0, dtype=np.float64)
    changes = spread > 0  # NaN is not
    ratio = np.divide(mean, spread, out=np.full(mean.shape, np.inf), where=changes)
    if changes.any() and np.median(ratio[changes]) < _NO_BASELINE:
        raise InputError(
            f"{where}: the typical voxel's mean is {np.median(mean[changes]):.3g} and its spread over time "
            f"{np.median(spread[changes]):.3g}: its mean seems removed, so percent of the mean says nothing; "
            "give BOLD with its mean, or say that amplitudes stay in the file's units: baseline=none "
            "(--set options.baseline=none)"
        )
    return ~changes | (ratio >= _NO_BASELINE)


def ends_early(events: Sequence[Event], length: float, where: str) -> list[str]:
    """Return a warning where all events lie in the first half of a run of ``length`` seconds.

    So it looks where onsets count volumes, or another run's file was copied.
    """
    last = max(event.onset + event.duration for event in events)
    if last > length / 2:
        return []
    return [
        f"{where}: the last event ends at {last:g} s of {length:g} s: are onsets in seconds, and is it this "
        "run's file?"
    ]


def block_betas(
    series: np.ndarray,
    events: Sequence[Event],
    repetition_time: float,
    where: str,
    *,
    hrf: str = "glover",
    noise: str = "ols",
    high_pass: float = 1 / 128,
    baseline: str = "percent",
) -> tuple[np.ndarray, list[str]]:
    """Fit one regressor a block and return its amplitude, in percent of the voxel's mean.

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
    baseline : {"percent", "none"}
        "none" leaves amplitudes in the series' own units, for series whose mean was removed.

    Returns
    -------
    betas : float32 array of shape (n_events, n_voxels)
        NaN where the series has NaN; 0 for a voxel whose mean is 0.
    warnings : list of str
        A near-singular design, with its condition number.

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
    with catch_warnings():  # nilearn warns of a singular design without numbers; it is named with them below
        filterwarnings("ignore", message="Matrix is singular")
        design = make_first_level_design_matrix(
            times, table, hrf_model=hrf, drift_model="cosine", high_pass=high_pass
        )
    if len(series) <= design.shape[1]:
        raise InputError(
            f"{where}: {len(series)} volumes for {design.shape[1]} regressors; needed: a longer run"
        )
    matrix = design.to_numpy()
    condition = float(np.linalg.cond(matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)))
    warnings = []
    if condition > _NEAR_SINGULAR:
        warnings.append(
            f"{where}: the design is near-singular (condition number {condition:.3g}; under "
            f"{_NEAR_SINGULAR:g} is usual): events overlap or follow each other too closely to be told apart"
        )
    known = np.isfinite(series).all(0)
    mean = series[:, known].mean(0, dtype=np.float64)
    scale = np.divide(100.0, mean, out=np.zeros(mean.shape), where=np.abs(mean) > 1e-6)
    changes = (series[:, known] - mean) * (scale if baseline == "percent" else 1.0)
    theta = np.full((matrix.shape[1], series.shape[1]), np.nan)
    if known.any():
        codes, fits = run_glm(changes, matrix, noise_model=noise)
        fitted = np.zeros((matrix.shape[1], changes.shape[1]))
        for code, fit in fits.items():
            fitted[:, codes == code] = fit.theta
        theta[:, known] = fitted
    columns = [design.columns.get_loc(name) for name in names]
    return theta[columns].astype(np.float32), warnings
