"""From measurements to one result: rows, gate, curves; results.json and results.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.compare import summary, tables
from lab.compare.gate import same_seed
from lab.compare.measuring import Measured
from lab.compare.recipes import FULL, OTHER_SEED
from lab.compare.statistics import Scores
from lab.errors import MissingDataError
from lab.files import write_json, write_text
from lab.runs.steps import StepCache


def conclude(
    about: dict[str, Any], measured: Sequence[Measured], failed: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Compute rows, gate, neighbours and curves.

    Returns
    -------
    dict
        ``about``, ``rows``, ``gates``, ``neighbours``, ``curves``, ``failed``; plain data.
    """
    scores = Scores(measured)
    rows = summary.rows(scores)
    key = next((k for k in summary.RANKED_BY if any(k in row for row in rows)), summary.RANKED_BY[-1])
    ranked = [row["recipe"] for row in rows if row["recipe"] not in (FULL, OTHER_SEED)]
    gate = same_seed([one for one in measured if one.recipe == FULL])
    return rounded({
        "about": about,
        "rows": rows,
        "gates": [gate.to_dict()],
        "neighbours": summary.neighbours(scores, ranked, key),
        "curves": {recipe: summary.curves(scores, recipe) for recipe in scores.by_recipe},
        "failed": list(failed),
    })  # fmt: skip


def write(result: dict[str, Any], out: Path) -> None:
    """Write results.csv and results.json."""
    write_text(out / "results.csv", tables.to_csv(result["rows"]))
    write_json(out / "results.json", result)


def pictures(measured: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Return each recipe's first pictures at seed 0: uint8 (k, H, W, 3)."""
    return {one.recipe: one.pictures for one in measured if one.seed == 0 and one.pictures is not None}


def stored(folder: Path) -> list[Measured]:
    """Read all finished measurements of a comparison's folder; of two with one name the newer one.

    Raises
    ------
    MissingDataError
        There are none.
    """
    cache = StepCache(folder / "steps")
    files = sorted((folder / "steps").glob("*.json"), key=lambda f: (f.stat().st_mtime_ns, f.name))
    found: dict[tuple[str, int], Measured] = {}
    for file in files:
        output = cache.load(file.stem)
        if output is not None and "recipe" in output:
            one = Measured.from_step(output)
            found[one.recipe, one.seed] = one
    if not found:
        raise MissingDataError(f"{folder} holds no finished measurement; give a folder that compare wrote")
    return list(found.values())


def rounded(value: Any, digits: int = 6) -> Any:
    """Round floats to significant digits and turn what is not finite into None, for JSON."""
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
