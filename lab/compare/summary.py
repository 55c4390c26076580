"""From measurements to flat rows, one per recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lab.compare.cost import EXACT, SAMPLED
from lab.compare.measuring import Measured
from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import FULL, OTHER_SEED
from lab.compare.statistics import Scores

SETS = tuple(f"{kind}({layer})" for layer in (LITE0, DOMAIN) for kind in ("KID", "FD"))
DATA = tuple(
    f"data.{kind}({layer})" for layer in (LITE0, DOMAIN) for kind in ("KID", "FD", "precision", "recall")
)
"""To the pictures that the conditions were made from; measurements of before lack them."""
PER_SEED = ("noise_nmse", *SETS, *DATA, "calibrate_seconds")
COSTS = (
    "bytes", "bytes_before", "bytes_quantized", "weight_bits", "tera_bit_ops", "bit_ops_share",
    "layers_quantized", "layers", "execution", "from_codes",
)  # fmt: skip
MADE = ("commit", "device")
"""Of each measurement: a comparison may go on at another commit or on another machine."""
LARGER_IS_BETTER = {
    "psnr_db": True, "ssim": True, "st_lpips": False, "latent_sqnr_db": True, "latent_rel_l2": False,
    "two_way": True, "pixcorr": True, "change_error": False,
}  # fmt: skip
"""Measures of single pictures or clips, each with its interval."""
BEST_AT_ONE = ("motion_ratio",)
"""Measures with an interval that no direction of is better: below 1 a clip freezes, above it flickers."""
RANKED_BY = ("psnr_db", "latent_sqnr_db")


def rows(scores: Scores) -> list[dict[str, Any]]:
    """One flat row per recipe, best first, full precision and its null on top.

    Measures of pictures have the bootstrap interval over seeds and pictures (``.low``, ``.high``); those and
    numbers of a seed have their least and greatest seed mean (``.seed_min``, ``.seed_max``).
    """
    found = [_row(scores, recipe) for recipe in scores.by_recipe]
    key = next((k for k in RANKED_BY if any(k in row for row in found)), RANKED_BY[-1])
    first = {FULL: 0, OTHER_SEED: 1}
    return sorted(found, key=lambda r: (first.get(r["recipe"], 2), -r.get(key, -np.inf), r["recipe"]))


def neighbours(scores: Scores, ranked: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """Each recipe against the next one in the ranking: difference, interval, whether 0 is outside."""
    out = []
    for better, worse in pairwise(ranked):
        found = scores.difference(better, worse, metric)
        if found is not None:
            sign = 1 if LARGER_IS_BETTER[metric] else -1
            low, high = sorted((sign * found.low, sign * found.high))
            out.append({
                "better": better, "worse": worse, "metric": metric, "difference": sign * found.mean,
                "low": low, "high": high, "distinguishable": low > 0,
            })  # fmt: skip
    return out


def curves(scores: Scores, recipe: str) -> dict[str, list[float]]:
    """Mean curves over seeds: timestep, noise_nmse, growth."""
    runs = [scores.by_recipe[recipe][s] for s in scores.seeds(recipe)]
    names = ("timestep", "noise_mse", "noise_nmse", "growth")
    return {n: np.mean([p.curves[n] for p in runs], axis=0).tolist() for n in names if n in runs[0].curves}


def _row(scores: Scores, recipe: str) -> dict[str, Any]:
    seeds = scores.seeds(recipe)
    numbers = scores.by_recipe[recipe][seeds[0]].numbers
    about = {name: numbers.get(name, "") for name in ("method", "policy", "calibrate_on")}
    row: dict[str, Any] = {"recipe": recipe, **about, "seeds": len(seeds), "n": scores.n}
    for metric in (*LARGER_IS_BETTER, *BEST_AT_ONE):
        found = scores.interval(recipe, metric)
        if found is not None:
            row |= {metric: found.mean, f"{metric}.low": found.low, f"{metric}.high": found.high}
            row |= _span(metric, scores.by_seed(recipe, metric))
    for name in PER_SEED:
        values = scores.scalars(recipe, name)
        if values:
            row |= {name: float(np.mean(values)), **_span(name, values)}
    row |= _peak(scores, recipe)
    for name in SETS:
        high = scores.scalars(recipe, f"{name}.high")
        row |= {f"{name}.null_high": max(high)} if high else {}
    row |= {name: numbers[name] for name in COSTS if name in numbers}
    mine = [scores.by_recipe[recipe][seed] for seed in seeds]
    return row | {name: " and ".join(said(mine, name)) for name in MADE}


def said(measured: Iterable[Measured], name: str) -> list[str]:
    """Return what measurements say of a word of `MADE`, each once; of before they said it: unknown."""
    return list(dict.fromkeys(str(one.numbers.get(name, "unknown")) for one in measured))


def _peak(scores: Scores, recipe: str) -> dict[str, Any]:
    """Peak memory and how it was measured, if at all seeds in one way that can be trusted.

    Measurements of before read the growth of resident memory over whatever had been freed: these are dropped.
    """
    hows = {one.numbers.get("calibrate_peak_how") for one in scores.by_recipe[recipe].values()}
    values = scores.scalars(recipe, "calibrate_peak_bytes")
    if not values or len(hows) > 1 or not hows <= {EXACT, SAMPLED}:
        return {}
    name = "calibrate_peak_bytes"
    return {name: float(np.mean(values)), **_span(name, values), "calibrate_peak_how": hows.pop()}


def _span(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}.seed_min": min(values), f"{name}.seed_max": max(values)}
