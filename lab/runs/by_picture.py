"""A run's scores picture by picture, and how far two runs are apart on the pictures that both decoded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from brainit.io import fingerprint
from brainit.metrics import Interval, paired_interval
from lab.files import write_json

FILE = "by_picture.json"
"""In a run's folder: ``pictures`` (a hash each) and ``scores``, by set and score one number per picture."""
_DIGITS = 6


def write_by_picture(folder: Path, truth: np.ndarray, each: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Keep what a run's scores are means of.

    Parameters
    ----------
    folder : Path
    truth : array of shape (n, H, W[, 3])
        What was shown.
    each : mapping of str to mapping of str to array of shape (n,)
        By set (``quantized``, ``fp``, ...) and score.
    """
    scores = {
        name: {key: [round(float(v), _DIGITS) for v in values] for key, values in one.items()}
        for name, one in each.items()
    }
    write_json(folder / FILE, {"pictures": _hashes(truth), "scores": scores})


def differences(one: Path, two: Path) -> dict[tuple[str, str], Interval]:
    """Return second minus first with its paired 95 % interval, by set and score.

    Of runs of categories by decoder (``""``, ``network.``, ``ridge.``) and ``category.accuracy``.

    Returns
    -------
    dict
        Empty where the runs were tested on different pictures or trials, a picture occurs twice, or a folder
        is of before this was kept.
    """
    return _of_pictures(one, two) or _of_trials(one, two)


def _of_pictures(one: Path, two: Path) -> dict[tuple[str, str], Interval]:
    try:
        first, second = (json.loads((run / FILE).read_text(encoding="utf-8")) for run in (one, two))
        places = [{key: i for i, key in enumerate(run["pictures"])} for run in (first, second)]
        if places[0].keys() != places[1].keys() or any(
            len(place) != len(run["pictures"]) for place, run in zip(places, (first, second), strict=True)
        ):
            return {}
        order = [places[1][key] for key in first["pictures"]]
        found = {}
        for name, scores in first["scores"].items():
            for key, values in scores.items():
                if key in second["scores"].get(name, {}):
                    other = np.asarray(second["scores"][name][key], float)[order]
                    found[name, key] = paired_interval(other, np.asarray(values, float))
        return found
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):  # none, or damaged
        return {}


def _of_trials(one: Path, two: Path) -> dict[tuple[str, str], Interval]:
    try:
        with np.load(one / "arrays.npz") as first, np.load(two / "arrays.npz") as second:
            if any(not np.array_equal(first[key], second[key]) for key in ("run", "label")):
                return {}
            found = {}
            for prefix in ("", "network.", "ridge."):
                name = f"{prefix.replace('.', '_')}category_predicted"
                right = [(run[name] == run["label"]).astype(float) for run in (first, second)]
                found[prefix, "category.accuracy"] = paired_interval(right[1], right[0])
            return found
    except (OSError, ValueError, KeyError):
        return {}


def _hashes(truth: np.ndarray) -> list[str]:
    return [fingerprint("", [one])[:16] for one in np.asarray(truth, np.float32)]
