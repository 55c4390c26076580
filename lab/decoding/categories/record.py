"""What a run of categories writes: flat metrics, arrays, and what the report says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from brainit.categories.decoding import CategoryScore
from brainit.config import BrainITConfig
from brainit.datasets.findings import odd_betas, odd_names
from brainit.metrics.intervals import paired_interval
from brainit.subject import Subject
from lab.decoding.settings import ReconstructConfig

if TYPE_CHECKING:
    from lab.runs.folder import Run

NO_PICTURES = (
    "The data do not record which picture was shown when, only its category. Without pictures to learn from "
    "none can be reconstructed, so each trial's category is decoded instead."
)
#: What stands beside scores where there are no pictures to compare.
NO_LEAKS = "no pictures to compare for leaks; every run was predicted by decoders that saw no trial of it"
_FIXED = "labels permuted within runs against the fixed out-of-fold predictions; nothing is trained again"
HOW = {
    "brainit": _FIXED,
    "network": _FIXED,
    "ridge": "labels permuted within runs and the whole leave-one-run-out decoder fitted again each time",
}
#: Arms of the score: prefix in metrics.json.
_PREFIX = {"brainit": "", "network": "network.", "ridge": "ridge."}


def leak_line(subject: Subject, names: np.ndarray) -> str:
    """Say what keeps training and test apart, and which stimuli were shown in several runs (``names``)."""
    pairs = np.unique(np.stack([subject.stimulus_id.astype(str), names.astype(str)], 1), axis=0)
    _, runs = np.unique(pairs[:, 0], return_counts=True)
    again = int((runs > 1).sum())
    if not again:
        return NO_LEAKS
    return (
        f"{NO_LEAKS}; but {again} of {len(runs)} stimuli, by name, were shown in several runs: to know one "
        "again is not to know its category"
    )


def metrics(
    config: ReconstructConfig,
    subject: Subject,
    labels: np.ndarray,
    names: np.ndarray,
    scores: Mapping[str, CategoryScore],
    folds: Mapping[str, Any],
) -> dict[str, Any]:
    """Lay the scores flat, as metrics.json has them."""
    ridge = scores["ridge"]
    found: dict[str, Any] = {
        "dataset": subject.dataset,
        "subject": subject.name,
        "simulated": subject.simulated,
        "seed": config.seed,
        "recipe": "none",
        "pictures": "none",
        "n_train": min(folds["n_train"]),
        "n_test": subject.n_trials,
        "n_runs": len(np.unique(names)),
        "n_categories": len(ridge.classes),
        "n_voxels": subject.n_voxels,
        "leaks": leak_line(subject, names),
        "category.chance": ridge.chance,
    }
    for arm, prefix in _PREFIX.items():
        name, score = f"{prefix}category.accuracy", scores[arm]
        low, high = score.interval
        found |= {name: score.accuracy, f"{name}.low": low, f"{name}.high": high, f"{name}.p": score.p}
    right = {arm: (scores[arm].predicted == labels).astype(float) for arm in scores}
    gap = paired_interval(right["brainit"], right["ridge"], n_draws=config.bootstrap, seed=config.seed)
    name = "minus_ridge.category.accuracy"
    return found | {name: gap.mean, f"{name}.low": gap.low, f"{name}.high": gap.high}


def arrays(
    subject: Subject,
    labels: np.ndarray,
    names: np.ndarray,
    scores: Mapping[str, CategoryScore],
    folds: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Gather what arrays.npz holds: labels, runs, predictions, confusions, voxels and their clusters."""
    made = {
        "label": labels,
        "run": names,
        "category_names": np.array(scores["ridge"].classes),
        "category_scores": folds["scores"],
        "xyz": subject.xyz.astype(np.float32),
        "cluster": folds["cluster"],
    }
    for arm, prefix in _PREFIX.items():
        under = prefix.replace(".", "_")
        made[f"{under}category_predicted"] = scores[arm].predicted
        made[f"{under}category_confusion"] = scores[arm].confusion
    return made


def about(
    run: Run,
    subject: Subject,
    brain: BrainITConfig,
    scores: Mapping[str, CategoryScore],
    folds: Mapping[str, Any],
) -> dict[str, Any]:
    """Add what the report says of categories to what the caller wrote of the subject."""
    file = run.path / "subject.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else _who(subject)
    ridge_weight, network_weight = np.mean(folds["weights"], axis=0)
    tested = {
        arm: {
            "line": score.line(),
            "per_category": score.per_category,
            "per_run": score.per_run,
            "null_mean": score.null_mean,
            "n_permutations": score.n_permutations,
            "test": HOW[arm],
        }
        for arm, score in scores.items()
    }
    return {
        **known,
        "pictures": NO_PICTURES,
        "category": tested,
        "category_brain": brain.model_dump(mode="json"),
        "weights": {"ridge": round(float(ridge_weight), 4), "network": round(float(network_weight), 4)},
        "cluster_of": f"the fold that holds out {folds['held'][-1]}",
    }


def _who(subject: Subject) -> dict[str, Any]:
    return {
        "terms": subject.info.get("terms"),
        "info": {key: value for key, value in subject.info.items() if key not in ("warnings", "terms")},
        "n_voxels": subject.n_voxels,
        "n_trials": subject.n_trials,
        "roi": {name: int(inside.sum()) for name, inside in subject.roi.items()},
        "warnings": [*subject.info.get("warnings", ()), *odd_betas(subject), *odd_names(subject)],
    }
