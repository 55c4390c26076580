"""From measurements to one result: rows, curves, and the gate: same seed, same picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.compare import summary, tables
from lab.compare.measuring import SQNR_CAP, Measured
from lab.compare.recipes import FULL, OTHER_SEED
from lab.compare.statistics import Scores
from lab.errors import MissingDataError
from lab.files import write_json, write_text
from lab.metrics.clips import PSNR_CAP
from lab.runs.steps import StepCache

ABOUT = "about.json"
"""File of a comparison's folder that says what it is, from its beginning on."""
RESULTS = "results.json"
"""File of a finished comparison: all rows, curves and gates."""
PERFECT = {
    "psnr_db": PSNR_CAP,
    "ssim": 1.0,
    "st_lpips": 0.0,
    "change_error": 0.0,
    "motion_ratio": 1.0,
    "latent_rel_l2": 0.0,
    "latent_sqnr_db": SQNR_CAP,
}


@dataclass(frozen=True)
class Gate:
    """One thing that must hold."""

    name: str
    expected: str
    found: str
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def same_seed(measured: Sequence[Measured]) -> Gate:
    """Full precision against itself must be exactly perfect, at every seed.

    Parameters
    ----------
    measured : sequence of Measured
        The full-precision model, drawn again after its own reference; one per seed.
    """
    wrong = [f"seed {one.seed}: {fault}" for one in measured for fault in _faults(one)]
    seeds = ", ".join(str(one.seed) for one in measured)
    return Gate(
        "same seed, same picture", "full precision against itself exactly perfect in every measure",
        "; ".join(wrong) or f"no difference in any picture, latent or prediction, seeds {seeds}",
        bool(measured) and not wrong,
    )  # fmt: skip


def _faults(one: Measured) -> list[str]:
    out = [
        f"{name} from {one.arrays[name].min():.6g} to {one.arrays[name].max():.6g}, not {value:g}"
        for name, value in PERFECT.items()
        if name in one.arrays
        and not np.abs(one.arrays[name] - value).max() <= (1e-12 if name == "ssim" else 0)  # NaN is a fault
    ]
    out += [f"{c} up to {one.curves[c].max():.3g}" for c in ("growth", "noise_mse") if one.curves[c].any()]
    return out + [
        f"{k} = {v:.3g}" for k, v in one.numbers.items() if k.startswith("FD(") and not abs(v) <= 1e-5
    ]


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
    ordered = sorted(measured, key=lambda one: (one.seed, one.recipe))
    made = {f"{name}s": summary.said(ordered, name) for name in summary.MADE}
    return rounded({
        "about": {**about, **made},
        "rows": rows,
        "gates": [gate.to_dict()],
        "neighbours": summary.neighbours(scores, ranked, key),
        "curves": {recipe: summary.curves(scores, recipe) for recipe in scores.by_recipe},
        "failed": list(failed),
    })  # fmt: skip


def write(result: dict[str, Any], out: Path) -> None:
    """Write results.csv and results.json."""
    write_text(out / "results.csv", tables.to_csv(result["rows"]))
    write_json(out / RESULTS, result)


def pictures(measured: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Return each recipe's first pictures at seed 0: uint8 (k, H, W, 3)."""
    return {one.recipe: one.pictures for one in measured if one.seed == 0 and one.pictures is not None}


def stored(folder: Path) -> list[Measured]:
    """Read all finished measurements of a comparison's folder; of two with one name the newer one.

    Newer by what they say themselves: a copied file's time is that of the copy. Those of before do not say.

    Raises
    ------
    MissingDataError
        There are none.
    """
    cache = StepCache(folder / "steps")
    files = sorted((folder / "steps").glob("*.json"), key=lambda f: (f.stat().st_mtime_ns, f.name))
    outputs = [cache.load(file.stem) for file in files]
    whole = [Measured.from_step(output) for output in outputs if output is not None and "recipe" in output]
    whole.sort(key=lambda one: str(one.numbers.get("when", "")))
    found = {(one.recipe, one.seed): one for one in whole}
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
