"""Score switches by cross-validation on training trials, so that nothing is ever tuned on test trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from brainit.config import BrainITConfig, override
from brainit.errors import InputError
from brainit.progress import Progress, silent
from brainit.subject import Subject
from brainit.training.fitting import fit
from brainit.training.targets import Targets, TargetTable

SWITCHES: dict[str, dict[str, Any]] = {
    "as configured": {},
    "direct, no ridge": {"care": {"residual_on_ridge": False, "calibrate": "none"}},
    "direct, stacked": {"care": {"residual_on_ridge": False, "calibrate": "stack"}},
    "residual, uncalibrated": {"care": {"residual_on_ridge": True, "calibrate": "none"}},
    "residual, stacked": {"care": {"residual_on_ridge": True, "calibrate": "stack"}},
    "five networks": {"care": {"folds": 5}},
    "InfoNCE + MSE": {"train": {"structure_loss": "infonce+mse"}},
    "InfoNCE only": {"train": {"structure_loss": "infonce"}},
    "noise on betas": {"care": {"beta_noise": 0.5}},
    "mixup": {"care": {"mixup": 0.5}},
    "voxel dropout": {"care": {"voxel_dropout": 0.3}},
    "random clusters": {"clusters": {"method": "random"}},
    "anatomical clusters": {"clusters": {"method": "anatomical"}},
}


def errors(predicted: Targets, target: Targets, mean: Targets) -> dict[str, float]:
    """Squared error of each part over that of always saying the mean training picture (1: no better).

    Keys are ``tokens``, ``structure_0`` ... and ``mean`` over those.
    """
    out = {}
    names = ["tokens", *(f"structure_{i}" for i in range(len(target.structure)))]
    for name, p, t, m in zip(names, predicted.parts, target.parts, mean.parts, strict=True):
        out[name] = float(((p - t) ** 2).sum() / ((m - t) ** 2).sum().clamp(min=1e-30))
    out["mean"] = float(np.mean(list(out.values())))
    return out


def ablation(
    subjects: Sequence[Subject],
    targets: TargetTable,
    config: BrainITConfig,
    *,
    switches: Mapping[str, Mapping[str, Any]] = SWITCHES,
    folds: int = 3,
    external: Targets | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Fit every variant on part of the training stimuli and score it on the rest; test trials are dropped.

    Parameters
    ----------
    subjects : sequence of Subject
    targets : TargetTable
    config : BrainITConfig
        What the switches start from.
    switches : mapping of str to nested overrides
    folds : int
        Outer folds over training stimuli; everything is fitted again in each.
    external : Targets, optional
        As for :func:`brainit.training.fitting.fit`.
    progress : callable

    Returns
    -------
    list of dict
        One row a variant: ``variant``, ``network``, ``calibrated``, ``ridge`` (each the error relative to the
        mean picture, averaged over parts, subjects and folds), ``by_part`` and ``gain`` (mean over held-out
        folds and subjects of ridge minus calibrated) with its standard error ``gain_se``.
    """
    train = [subject.part("train") for subject in subjects]
    stimuli = np.unique(np.concatenate([subject.stimulus_id for subject in train]))
    if not 2 <= folds <= len(stimuli) // 4:
        raise InputError(
            f"folds must be 2..{len(stimuli) // 4} for {len(stimuli)} training stimuli, got {folds}"
        )
    order = np.random.default_rng(config.train.seed).permutation(stimuli)
    parts = np.array_split(order, folds)
    rows = []
    for index, (name, values) in enumerate(switches.items()):
        variant = override(config, values)
        scores: list[dict[str, dict[str, float]]] = []
        for number, held in enumerate(parts):
            progress(index * folds + number, len(switches) * folds, f"{name}, fold {number + 1} of {folds}")
            scores += _score(train, held, targets, variant, external)
        rows.append(_row(name, scores))
    progress(len(switches) * folds, len(switches) * folds, "ablation")
    return rows


def _score(
    train: Sequence[Subject],
    held: np.ndarray,
    targets: TargetTable,
    config: BrainITConfig,
    external: Targets | None,
) -> list[dict[str, dict[str, float]]]:
    split = [replace(s, split=np.where(np.isin(s.stimulus_id, held), "test", "train")) for s in train]
    decoder = fit(split, targets, config, external=external)
    out = []
    for subject in split:
        test = subject.part("test").mean_over_repeats()
        if not test.n_trials:
            continue
        truth, mean = targets.take(test.stimulus_id), decoder.predict_mean(test.n_trials)
        predictions = {"network": decoder.predict_network(test), "calibrated": decoder.predict(test)}
        if decoder.ridges:
            predictions["ridge"] = decoder.predict_ridge(test)
        out.append({what: errors(p, truth, mean) for what, p in predictions.items()})
    return out


def _row(name: str, scores: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": name}
    for what in scores[0]:
        row[what] = float(np.mean([score[what]["mean"] for score in scores]))
    row["by_part"] = {
        what: {part: float(np.mean([s[what][part] for s in scores])) for part in scores[0][what]}
        for what in scores[0]
    }
    if "ridge" in scores[0]:
        gains = np.array([score["ridge"]["mean"] - score["calibrated"]["mean"] for score in scores])
        row["gain"] = float(gains.mean())
        row["gain_se"] = float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else float("nan")
    return row
