"""Tables of `benchmarks.trained.full`: recipes, differences over seeds and pictures, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.markdown import table
from lab.compare.statistics import Resampler, bounds

FINE_TUNED = "qvgen-w4a4-branch"
START = f"{FINE_TUNED}+train_steps=0"
RIVAL = "svdquant-gptq-w4a4"
PAIRS = ((FINE_TUNED, START), (FINE_TUNED, RIVAL), (START, RIVAL))
"""The fine-tuned preset, the SVDQuant that it starts from, and the best preset that does not train."""
COMPARED = "efficientdm-w4a4+train_steps=600+look_every=50"
LOW_RANK = tuple(f"{COMPARED}+rate_factors={rate}" for rate in (0.02, 0.005))
WHOLE = tuple(f"{recipe}+rank=0" for recipe in LOW_RANK)
"""A rate that suits factors need not suit weights: each has the better of two."""
Row = Mapping[str, Any]


def markdown(rows: Sequence[Row], about: str) -> str:
    """Write a table by model, then differences and costs."""
    lines = ["# Presets that train, at their full budgets", "", about]
    for model in dict.fromkeys(row["model"] for row in rows):
        lines += ["", f"## {model}", ""]
        by_recipe: dict[str, list[Row]] = {}
        for row in rows:
            if row["model"] == model:
                by_recipe.setdefault(row["recipe"], []).append(row)
        order = sorted(by_recipe.values(), key=lambda some: mean(r["error"] for r in some))
        lines += table(
            ["recipe", "seeds", "error", "SNR of finals, dB", "held out, first and best", "bits a weight",
             "file, MB", "steps", "training, s", "all, s", "peak, MB"],
            [_cells(some) for some in order],
        )  # fmt: skip
    several = any(len([r for r in rows if r["recipe"] == row["recipe"]]) > 1 for row in rows)
    if several:
        lines += ["", "Over seeds: the mean, and [least, greatest]."]
    return "\n".join(lines + differences(rows) + cost(rows)) + "\n"


def _cells(some: Sequence[Row]) -> list[str]:
    row = some[0]
    held = "–"
    if row["held_out"] is not None:
        held = ", ".join(f"{mean(r[k] for r in some):.4f}" for k in ("held_out_first", "held_out"))
    return [
        f"`{row['recipe']}`", str(len(some)), _range([r["error"] for r in some], 4),
        _range([r["snr_db"] for r in some], 2), held, f"{row['bits_a_weight']:.2f}",
        f"{row['file_bytes'] / 1e6:.2f}", str(row["train_steps"]),
        f"{mean(r['train_seconds'] for r in some):.0f}", f"{mean(r['seconds'] for r in some):.0f}",
        f"{max(r['peak_mb'] for r in some):.0f}",
    ]  # fmt: skip


def _range(values: Sequence[float], digits: int) -> str:
    shown = f"{mean(values):.{digits}f}"
    return f"{shown} [{min(values):.{digits}f}, {max(values):.{digits}f}]" if len(values) > 1 else shown


def differences(rows: Sequence[Row]) -> list[str]:
    """Compare recipes picture by picture, over the seeds that both have."""
    cells = []
    for better, worse in PAIRS:
        one, other = (
            {r["seed"]: r["by_picture"] for r in rows if r["recipe"] == name and "by_picture" in r}
            for name in (better, worse)
        )
        if not (seeds := sorted(set(one) & set(other))):
            continue
        found = [f"`{better}`", f"`{worse}`", ", ".join(map(str, seeds))]
        for name in ("final_error", "error"):
            gain, low, high = gained(*(np.array([side[s][name] for s in seeds]) for side in (one, other)))
            found.append(f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]")
        cells.append(found)
    if not cells:
        return []
    return [
        "", "## Picture by picture", "",
        "How much smaller the summed squared error is, dB (powers are the same). Intervals (95 %) are over "
        "seeds and pictures, both drawn with replacement and crossed: of one seed, over pictures alone.", "",
        *table(["recipe", "against", "seeds", "final samples, dB", "predictions, dB"], cells),
    ]  # fmt: skip


def gained(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """How much smaller errors (seeds, n) are than others, dB, and what 95 % of resamples lie between."""
    resampler = Resampler(one.shape[1])
    draws = 10 * np.log10(resampler.means(other) / resampler.means(one))
    return (float(10 * np.log10(other.sum() / one.sum())), *bounds(draws))


def cost(rows: Sequence[Row]) -> list[str]:
    """Write what factors and whole weights took to reach the error that both reach."""
    sides = [[r for r in rows if r["recipe"] in names and r["by_step"]] for names in (LOW_RANK, WHOLE)]
    if not all(sides):
        return []
    level = max(min(min(row["by_step"].values()) for row in side) for side in sides)
    lines = ["", "## Low-rank factors against whole weights, W4A4", ""]
    lines += [
        f"Cost until the error on held-out trajectories is {level:.4f}, the least that both reach, "
        "each at the better of its rates.",
        "",
    ]
    cells = []
    for row in (row for side in sides for row in side):
        there = [int(step) for step, error in row["by_step"].items() if error <= level]
        each = row["train_seconds"] / max(1, row["train_steps"])
        cells.append([
            f"`{row['recipe']}`", str(min(there)) if there else "not reached", f"{1e3 * each:.0f}",
            f"{min(there) * each:.0f}" if there else "–",
            f"{row['peak_mb']:.0f}", f"{min(row['by_step'].values()):.4f}",
        ])  # fmt: skip
    return lines + table(["recipe", "steps", "ms a step", "GPU-seconds", "peak, MB", "least error"], cells)
