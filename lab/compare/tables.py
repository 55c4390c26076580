"""The numbers of a comparison for a person: columns, notes, cells; and CSV with every column."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lab.compare.cost import EXACT
from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import FULL
from lab.compare.summary import RANKED_BY

COLUMNS = (
    ("seeds", "seeds", "{:.0f}", 1.0),
    ("psnr_db", "PSNR, dB ↑", "{:.2f}", 1.0),
    ("ssim", "SSIM ↑", "{:.3f}", 1.0),
    ("st_lpips", "ST-LPIPS ↓", "{:.4f}", 1.0),
    ("change_error", "change error ↓", "{:.3f}", 1.0),
    ("motion_ratio", "motion energy, 1 is right", "{:.3f}", 1.0),
    ("latent_sqnr_db", "latent SQNR, dB ↑", "{:.2f}", 1.0),
    ("noise_nmse", "prediction error ↓", "{:.2e}", 1.0),
    (f"KID({LITE0})", "KID ↓", "{:.3g}", 1.0),
    (f"FD({DOMAIN})", "FD ↓", "{:.3f}", 1.0),
    (f"data.KID({LITE0})", "KID to data ↓", "{:.3g}", 1.0),
    (f"data.FD({DOMAIN})", "FD to data ↓", "{:.3f}", 1.0),
    (f"data.precision({LITE0})", "precision ↑", "{:.3f}", 1.0),
    (f"data.recall({LITE0})", "recall ↑", "{:.3f}", 1.0),
    ("two_way", "two-way ↑", "{:.3f}", 1.0),
    ("pixcorr", "PixCorr ↑", "{:.3f}", 1.0),
    ("weight_bits", "bits per weight", "{:.2f}", 1.0),
    ("bytes", "MB", "{:.2f}", 1e-6),
    ("bit_ops_share", "bit-ops", "{:.1%}", 1.0),
    ("calibrate_seconds", "calibrated in, s", "{:.1f}", 1.0),
    ("calibrate_peak_bytes", "peak, MB", "{:.1f}", 1e-6),
)
"""Name, heading, form, factor."""
NEVER = (
    "class agreement and entropy (a condition is the tokens of a picture, not a class)",
    "latency (simulated low-bit arithmetic has none that means anything)",
)
SIMULATED = "everything is *simulated* low-bit arithmetic on decoded codes"
NATIVE = (
    "recipes ran through the GPU's low-bit kernels (*native*; how many of their layers, and how those were "
    "launched, the CSV says)"
)
NOTES = (
    "Mean over pictures and seeds, 95 % bootstrap interval over both in brackets (a seed is other noise and "
    "another calibration; Owen's pigeonhole bootstrap); "
    f"{SIMULATED}. Paired measures and set distances are to the "
    "full-precision model's own pictures at the same seeds, of 8-bit pictures; SSIM has scikit-image's "
    f"uniform window of 7, channel by channel. KID is KID({LITE0}), FD is FD({DOMAIN}): "
    "neither is comparable with numbers from other networks; KID is unbiased, so it falls below 0 for sets "
    "that share their noise. Prediction error: of the denoiser at the full-precision model's states, "
    "relative to its power, mean over timesteps. To data: to the pictures that the conditions were made "
    "from, the same for all recipes; precision and recall are of these too, by 3 nearest neighbours in "
    f"{LITE0} (Kynkäänniemi et al. 2019). Two-way: how often a picture is nearer (by correlation of "
    "EfficientNet-Lite0 head features) to the picture its condition was made from than to another one; "
    "chance 0.5. PixCorr: correlation with that picture. Bit-ops: share of 16x16-bit operations. Calibration "
    "is timed in a process that may share its machine with others that calibrate: an order of magnitude, no "
    "benchmark. Peak: memory that calibrating needed beyond the model, counted by CUDA's allocator; resident "
    "memory on the CPU is too coarse to stand beside it and is left to the CSV."
)
PEAK, PEAK_HOW = "calibrate_peak_bytes", "calibrate_peak_how"


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every column of every row, in the order of first appearance."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def cell(row: Mapping[str, Any], name: str, form: str, factor: float, bounds: bool = True) -> str:
    """One number for a person; with its interval what recipes are ranked by."""
    value = shown(row, name)
    if value is None:
        return "–"
    said = form.format(value * factor)
    low, high = row.get(f"{name}.low"), row.get(f"{name}.high")
    ranked = next((key for key in RANKED_BY if shown(row, key) is not None), None)
    if bounds and name == ranked and low is not None and high is not None and row["recipe"] != FULL:
        said += f" [{form.format(low * factor)}, {form.format(high * factor)}]"
    return said


def shown_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, float]]:
    """Columns that at least one row has."""
    return [c for c in COLUMNS if any(shown(row, c[0]) is not None for row in rows)]


def shown(row: Mapping[str, Any], name: str) -> float | None:
    """Return a row's number for a table; none for a peak that was not counted exactly."""
    value = row.get(name)
    if not isinstance(value, int | float):
        return None
    if name == PEAK:  # tables of before have no word on how, but were exact on CUDA
        how = row.get(PEAK_HOW) or (EXACT if str(row.get("calibrate_on")).startswith("cuda") else "")
        return value if how == EXACT else None
    return value


def not_measured(result: Mapping[str, Any]) -> list[str]:
    """Name what a panel of quality would have and this one has not, and why."""
    out = list(result["about"].get("missing") or [])
    if not any(key.startswith("data.") for row in result["rows"] for key in row):
        out.append("distances to source pictures (there are none, or the measurement is older)")
    return [*out, *NEVER]


def peaks(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many recipes' peak memory was measured which way; nothing where no row says."""
    hows = [row[PEAK_HOW] for row in rows if row.get(PEAK_HOW)]
    return ", ".join(f"{hows.count(how)} x {how}" for how in sorted(set(hows)))
