"""What a report shows where no pictures are known: categories decoded, their confusions, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.figures.brain.categories import category_accuracies, confusion_matrices
from lab.report.block import Block, figure, sentence
from lab.report.rundata import RunData

#: Prefix in metrics.json, name in subject.json, label.
ARMS = (
    ("", "brainit", "Brain-IT"),
    ("network.", "network", "networks alone"),
    ("ridge.", "ridge", "ridge on betas"),
)


def category_summary(run: RunData) -> list[str]:
    """Say the result in two sentences."""
    m = run.metrics
    who = "a simulated subject" if run.simulated else "measured fMRI"
    first = (
        f"Category of {m.get('n_test', '?')} trials decoded from {who}: each of {m.get('n_runs', '?')} runs "
        "by decoders trained on the others. No pictures, because none are known."
    )
    score = _number(m, "category.accuracy")
    if score is None:
        return [first]
    low, high = (_percent(m, f"category.accuracy.{bound}") for bound in ("low", "high"))
    said = f"Brain-IT is right in {score:.1%} [{low}, {high}]"
    rivals = [f"ridge {_percent(m, 'ridge.category.accuracy')}", f"chance {_percent(m, 'category.chance')}"]
    p = _number(m, "category.accuracy.p")
    rivals += [f"p = {p:.1g} by permutation"] if p is not None else []
    return [first, f"{said}, beside {', '.join(rivals)}."]


def category_table(run: RunData) -> Block | None:
    """Accuracy of each decoder with interval and permutation p, beside chance."""
    if not run.categories:
        return None
    m, rows = run.metrics, []
    for prefix, _, label in ARMS:
        name = f"{prefix}category.accuracy"
        value, p = _number(m, name), _number(m, f"{name}.p")
        if value is not None:
            rows.append(
                {
                    "label": label,
                    "value": f"{value:.3f}",
                    "bounds": f"[{_digits(m, f'{name}.low')}, {_digits(m, f'{name}.high')}]",
                    "p": "–" if p is None else f"{p:.1g}",
                }
            )
    if not rows:
        return sentence("metrics.json holds no category accuracy.")
    return Block("category_table", {"rows": rows, "chance": _digits(m, "category.chance")})


def category_notes(run: RunData) -> Block | None:
    """Say why there are no pictures, what the permutations do, and how the two parts were weighed."""
    if not run.categories:
        return None
    notes = [str(run.subject["pictures"])] if run.subject.get("pictures") else []
    notes.append(
        "Without pictures there is no leak check by pictures: what keeps training and test apart is "
        "that every run was predicted by decoders that saw no trial of it."
    )
    info = run.subject.get("info")
    if isinstance(info, Mapping) and info.get("units") == "z-scored within run":
        notes.append("Voxels were scaled within each run, held-out ones too; this uses no labels.")
    for _, arm, label in ARMS:
        own = _tested(run).get(arm)
        if own and arm != "network":
            notes.append(f"p of {label}: {own['test']} ({own['n_permutations']:,} times).")
    weights = run.subject.get("weights")
    if isinstance(weights, Mapping):
        notes.append(
            f"Brain-IT's tokens are {weights['ridge']:.2f} x ridge + {weights['network']:.2f} x networks "
            "(mean over folds); each fold's weights come from its training runs. A category is named by "
            "the token that the prediction correlates with most."
        )
    gap = _number(run.metrics, "minus_ridge.category.accuracy")
    if gap is not None:
        low, high = (_number(run.metrics, f"minus_ridge.category.accuracy.{k}") for k in ("low", "high"))
        bounds = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
        notes.append(f"Brain-IT minus ridge, trial by trial: {gap:+.3f}{bounds}.".replace("-0", "\u22120"))
    return Block("notes", {"notes": notes}) if notes else None


def category_chart(run: RunData) -> Block | None:
    """Accuracy of each category."""
    shares = {label: _tested(run)[arm]["per_category"] for _, arm, label in ARMS if arm in _tested(run)}
    chance = _number(run.metrics, "category.chance")
    if not run.categories or not shares or chance is None:
        return None
    classes = sorted(next(iter(shares.values())))
    return figure(lambda theme: category_accuracies(shares, classes, chance, _source(run), theme))


def confusion_chart(run: RunData) -> Block | None:
    """Confusion matrices of Brain-IT and ridge."""
    names = run.arrays.get("category_names")
    tables = {
        label: run.arrays[key]
        for key, label in (
            ("category_confusion", ARMS[0][2]),
            ("network_category_confusion", ARMS[1][2]),
            ("ridge_category_confusion", ARMS[2][2]),
        )
        if key in run.arrays
    }
    if names is None or not tables or any(np.shape(t) != (len(names),) * 2 for t in tables.values()):
        return None
    return figure(lambda theme: confusion_matrices(tables, names.tolist(), _source(run), theme))


def _tested(run: RunData) -> Mapping[str, Any]:
    found = run.subject.get("category")
    return found if isinstance(found, Mapping) else {}


def _source(run: RunData) -> Any:
    return run.provenance(
        f"{run.metrics.get('n_test', '?')} trials of {run.metrics.get('n_runs', '?')} held-out runs"
    )


def _number(metrics: Mapping[str, Any], key: str) -> float | None:
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _digits(metrics: Mapping[str, Any], key: str) -> str:
    value = _number(metrics, key)
    return "–" if value is None else f"{value:.3f}"


def _percent(metrics: Mapping[str, Any], key: str) -> str:
    value = _number(metrics, key)
    return "–" if value is None else f"{value:.1%}"
