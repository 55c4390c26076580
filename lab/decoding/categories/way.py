"""The way of `brain reconstruct` for data that do not say which picture was shown when: categories only.

Every run is predicted by decoders that were trained on the other runs: by ridge from the betas, and by
Brain-IT, whose tokens are then compared with each category's. No picture is made, and the report says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from brainit.categories.decoding import CategoryScore, decode_category, score_predictions
from brainit.categories.tokens import CARE, predict_held_out, run_names
from brainit.config import BrainITConfig, override, parse_config
from brainit.subject import Subject
from lab.decoding.categories import record
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.files import write_json, write_npz
from lab.progress import Progress, silent
from lab.runs.metrics import flat

if TYPE_CHECKING:
    from lab.runs.folder import Run

N_PERMUTATIONS = 10_000


def train_folds(
    run: Run, config: ReconstructConfig, subject: Subject, progress: Progress = silent
) -> dict[str, Any]:
    """Train the networks of every held-out run and stop there; `run_categories` goes on from them.

    Returns
    -------
    dict
        ``n_folds`` and ``n_train``, the fewest trials a fold was trained on.

    Raises
    ------
    InputError
        No labels, or fewer than two runs or categories.
    """
    names = run_names(_labelled(subject))
    brain, classes = brain_settings(config), len(np.unique(subject.labels))  # type: ignore[arg-type]
    folds = _folds(run, brain, subject, names, classes, progress)
    return {"n_folds": len(folds["held"]), "n_train": min(folds["n_train"])}


def _labelled(subject: Subject) -> Subject:
    if subject.labels is None:
        raise InputError(
            f"dataset {subject.dataset!r}, subject {subject.name!r}: neither pictures nor category labels, "
            "so there is nothing to decode; choose another dataset (brainlab data list)"
        )
    return subject


def run_categories(
    run: Run, config: ReconstructConfig, subject: Subject, progress: Progress = silent
) -> dict[str, Any]:
    """Decode categories leave-one-run-out; write metrics and arrays, and add the details to subject.json.

    Each held-out run is a cached step, so a killed run goes on with the next one. The caller writes
    versions.json and the report, and marks the run finished.

    Parameters
    ----------
    run : Run
    config : ReconstructConfig
        ``brain`` as `brain_settings` completes it; the denoiser's settings are not used.
    subject : Subject
        With labels; its split is not looked at, since every run is held out once.
    progress : callable

    Returns
    -------
    dict
        Flat metrics as written: ``category.accuracy`` (Brain-IT), ``network.category.accuracy``,
        ``ridge.category.accuracy``, each with ``.low``, ``.high`` (95 % Wilson) and ``.p`` (permutation).

    Raises
    ------
    InputError
        No labels, or fewer than two runs or categories.
    """
    labels = np.asarray(_labelled(subject).labels).astype(str)
    brain, names = brain_settings(config), run_names(subject)
    scores = {"ridge": _ridge(run, config, subject, labels, names, progress)}
    folds = _folds(run, brain, subject, names, len(scores["ridge"].classes), progress)
    for arm in ("brainit", "network"):
        scores[arm] = score_predictions(
            folds[arm], labels, names, n_permutations=N_PERMUTATIONS, seed=config.seed
        )
    write_npz(run.path / "arrays.npz", record.arrays(subject, labels, names, scores, folds))
    write_json(run.path / "subject.json", record.about(run, subject, brain, scores, folds))
    return run.write_metrics(record.metrics(config, subject, labels, names, scores, folds))


def brain_settings(config: ReconstructConfig) -> BrainITConfig:
    """Return Brain-IT's settings for one trial a category and run.

    Where the preset is "few", `CARE` takes the place of what was left at its default; anything given by hand
    stays, and another preset is taken as it is.
    """
    if config.preset != "few":
        return config.brain
    given, default = (
        flat(brain.model_dump()) for brain in (config.brain, parse_config(preset=config.preset))
    )
    lean = {
        section: {k: v for k, v in values.items() if given[f"{section}.{k}"] == default[f"{section}.{k}"]}
        for section, values in CARE.items()
    }
    return override(config.brain, lean)


def _ridge(
    run: Run,
    config: ReconstructConfig,
    subject: Subject,
    labels: np.ndarray,
    names: np.ndarray,
    progress: Progress,
) -> CategoryScore:
    def compute() -> dict[str, Any]:
        score = decode_category(
            subject.betas,
            labels,
            names,
            n_permutations=N_PERMUTATIONS,
            seed=config.seed,
            progress=progress,
        )
        return vars(score)

    stored = run.step("ridge", compute)
    return CategoryScore(
        **{**stored, "interval": tuple(stored["interval"]), "classes": tuple(stored["classes"])}
    )


def _folds(
    run: Run,
    brain: BrainITConfig,
    subject: Subject,
    names: np.ndarray,
    n_classes: int,
    progress: Progress,
) -> dict[str, Any]:
    """Run every fold and put its predictions back at their trials."""
    held = list(dict.fromkeys(names.tolist()))
    category, network = np.empty((2, len(names)), object)
    scores = np.empty((len(names), n_classes))
    out: dict[str, Any] = {"weights": [], "n_train": []}
    for index, name in enumerate(held):

        def told(done: int, total: int, what: str, index: int = index, name: str = name) -> None:
            progress(index * total + done, len(held) * total, f"{name} held out, {what}")

        def compute(name: str = name, told: Progress = told) -> dict[str, Any]:
            return vars(predict_held_out(subject, name, brain, told))

        stored = run.step(f"fold.{name}", compute)
        trials = stored["trials"]
        category[trials], network[trials], scores[trials] = (
            stored["category"],
            stored["network"],
            stored["scores"],
        )
        out["weights"].append(stored["weights"])
        out["n_train"].append(stored["n_train"])
        out["cluster"] = stored["cluster"]  # the last run's fold is the one that the report shows
    return {
        **out,
        "brainit": category.astype(str),
        "network": network.astype(str),
        "scores": scores,
        "held": held,
    }
