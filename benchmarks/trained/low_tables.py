"""Tables of `benchmarks.trained.low`: each run, and all of them with what is paired between recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.markdown import table
from lab.compare.statistics import Resampler

SCORES = (
    ("two_way_feature", "two-way, features", 3), ("two_way_feature_minus_fp", "less full precision's", 3),
    ("two_way_pix", "two-way, pixels", 3), ("paired_psnr_to_fp", "PSNR to full precision, dB", 1),
)  # fmt: skip
Row = Mapping[str, Any]


def markdown(rows: Sequence[Row], order: Sequence[str], left: Sequence[str], about: str) -> str:
    """Write a table for each run, variants in their order; over several runs, means and differences."""
    runs = sorted({row["run"] for row in rows})
    lines = ["# Two-bit weights on a decoder of brains", "", about]
    heads = [
        "variant", *(head for _, head, _ in SCORES), "SNR of finals, dB", "bits a weight, true", "MB",
        "steps", "training, s", "recipe",
    ]  # fmt: skip
    for person in runs:
        mine = [row for row in rows if row["run"] == person]
        sorted_ = [r for name in ("full precision", *order) for r in mine if r["variant"] == name]
        lines += ["", f"## {person} (simulated subject)", ""]
        lines += table(heads, [_cells(row) for row in sorted_])
    if len(runs) > 1:
        lines += _over_runs(rows, order, len(runs))
    lines += [f"\nNot measured: {name}." for name in left]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    out = [row["variant"]]
    for name, _, digits in SCORES:
        out.append(_interval(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"), digits))
    trained = row["train_steps"]
    return [
        *out, "–" if row["snr_db"] is None else f"{row['snr_db']:.2f}", f"{row['weight_bits']:.2f}",
        f"{row['bytes'] / 1e6:.2f}", str(trained or "–"), f"{row['train_seconds']:.0f}" if trained else "–",
        f"`{row['recipe']}`",
    ]  # fmt: skip


def _interval(value: float | None, low: float | None, high: float | None, digits: int) -> str:
    shown = "–" if value is None else f"{value:.{digits}f}"
    return shown if low is None or high is None else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def _over_runs(rows: Sequence[Row], order: Sequence[str], count: int) -> list[str]:
    by_run = {
        name: {r["run"]: r for r in rows if r["variant"] == name} for name in ("full precision", *order)
    }
    whole = {name: list(found.values()) for name, found in by_run.items() if len(found) == count}
    cells = []
    for name, found in whole.items():
        lowest = [
            -row["two_way_feature_minus_fp"]
            for row in found
            if "two_way_feature_minus_fp" in row["by_picture"]
        ]
        least = f"{min(lowest):.3f}, {max(lowest):.3f}" if lowest else "–"
        cells.append([name, *(over_runs(found, score, digits) for score, _, digits in SCORES), least])
    heads = ["variant", *(head for _, head, _ in SCORES), "least and most below full precision's"]
    lines = [
        "", f"## All {count} runs", "",
        "Intervals (95 %) are over runs and test pictures, both drawn with replacement and crossed.", "",
        *table(heads, cells),
    ]  # fmt: skip
    names = [name for name in whole if name != "full precision"]
    pairs = [(one, other) for k, one in enumerate(names) for other in names[k + 1 :]]
    if not pairs:
        return lines
    shared = [score for score in SCORES if "minus_fp" not in score[0]]
    cells = [
        [
            f"{other} − {one}",
            *(_difference(by_run[other], by_run[one], score, digits) for score, _, digits in shared),
        ]
        for one, other in pairs
    ]
    lines += ["", "Differences, run by run and picture by picture:", ""]
    return lines + table(["difference", *(head for _, head, _ in shared)], cells)


def over_runs(rows: Sequence[Row], score: str, digits: int) -> str:
    """Write a score's mean over runs and pictures with its interval."""
    values = [row["by_picture"].get(score) for row in rows]
    return "–" if None in values else _of(np.array(values), digits)


def _difference(one: Mapping[str, Row], other: Mapping[str, Row], score: str, digits: int) -> str:
    first, second = ([rows[name]["by_picture"].get(score) for name in one] for rows in (one, other))
    return "–" if None in (*first, *second) else _of(np.array(first) - np.array(second), digits)


def _of(values: np.ndarray, digits: int) -> str:
    found = Resampler(values.shape[1]).interval(values)
    return _interval(found.mean, found.low, found.high, digits)
