"""A comparison as files for reading: CSV with every column, Markdown with the main ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lab.compare.memory import EXACT
from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import FULL, OTHER_SEED

COLUMNS = (
    ("seeds", "seeds", "{:.0f}", 1.0),
    ("psnr_db", "PSNR, dB ↑", "{:.2f}", 1.0),
    ("ssim", "SSIM ↑", "{:.3f}", 1.0),
    ("st_lpips", "ST-LPIPS ↓", "{:.4f}", 1.0),
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
    ("weight_bits", "bits a weight", "{:.2f}", 1.0),
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
LISTED = 8
"""Claims that were not run are named up to so many."""
NOTES = (
    "Mean over pictures and seeds, 95 % bootstrap interval over both in brackets (a seed is other noise and "
    "another calibration; Owen's pigeonhole bootstrap); everything is *simulated* low-bit arithmetic on "
    "decoded codes. Paired measures and set distances are to the "
    f"full-precision model's own pictures at the same seeds. KID is KID({LITE0}), FD is FD({DOMAIN}): "
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
    """One number for a person, with its interval where there is one."""
    value = shown(row, name)
    if value is None:
        return "–"
    said = form.format(value * factor)
    low, high = row.get(f"{name}.low"), row.get(f"{name}.high")
    if bounds and name == "psnr_db" and low is not None and high is not None and row["recipe"] != FULL:
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
        out.append("distances to source pictures (there are none, or the parts are older than the measure)")
    return [*out, *NEVER]


def peaks(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many recipes' peak memory was measured which way; nothing where no row says."""
    hows = [row[PEAK_HOW] for row in rows if row.get(PEAK_HOW)]
    return ", ".join(f"{hows.count(how)} by {how}" for how in sorted(set(hows)))


def to_markdown(result: Mapping[str, Any], figure: str | None = None) -> str:
    """Write the main columns, gates and orderings, for a repository; `figure` lies beside the file."""
    about, rows = result["about"], result["rows"]
    columns = shown_columns(rows)
    lines = [f"# Post-training quantization of {about['model']}", "", _made_by(result), "", NOTES, ""]
    lines += [f"![Quality over stored size, by recipe]({figure})", ""] if figure else []
    lines += _table(
        ["recipe", *(c[1] for c in columns)],
        [[_name(row), *(cell(row, c[0], c[2], c[3]) for c in columns)] for row in rows],
    )
    places = [row["calibrate_on"] for row in rows if row.get("calibrate_on")]
    counts = ", ".join(f"{places.count(place)} on {place}" for place in sorted(set(places)))
    lines += ["", f"Calibrated: {counts} (`calibrate_on` in the JSON)."] if counts else []
    lines += ["", f"Peak memory: {peaks(rows)} (`{PEAK_HOW}`)."] if peaks(rows) else []
    if len({row["seeds"] for row in rows}) > 1:
        lines += [
            "",
            "Not every recipe was measured at every seed; differences are over seeds that both have.",
        ]
    null: Mapping[str, Any] = next((row for row in rows if row["recipe"] == OTHER_SEED), {})
    highs = [f"{k[:-10]} {v:.3g}" for k, v in null.items() if k.endswith(".null_high")]
    if highs:
        lines += [
            "",
            f"Null (full precision with other seeds), largest of re-dealt sets: {'; '.join(highs)}.",
        ]
    failed = [g for g in result["gates"] if not g["passed"]]
    passed = len(result["gates"]) - len(failed)
    lines += ["", "## Gates", "", f"{passed} of {len(result['gates'])} passed.", ""]
    lines += _table(
        ["gate", "expected", "found", ""],
        [[g["name"], g["expected"], g["found"], "passed" if g["passed"] else "**failed**"]
         for g in result["gates"]],
    )  # fmt: skip
    lines += ["", "## Orderings", "", "Better minus worse, 95 % interval over seeds and pictures.", ""]
    judged = [o for o in result["orderings"] if o["verdict"] != "not run"]
    absent = [o for o in result["orderings"] if o["verdict"] == "not run"]
    lines += _table(["claim", "worse", "better", "difference", "verdict", "source"], [
        [o["says"], _code(o["worse"]), _code(o["better"]), span(o), o["verdict"] + (f" ({o['note']})" if
         o["note"] and o["kind"] != "null" else ""), o["source"]]
        for o in judged
    ])  # fmt: skip
    if absent:
        said = dict.fromkeys(f"{o['id']} ({o['note']})" for o in absent)
        listed = "; ".join(said) if len(said) <= LISTED else f"{len(said)} claims about other recipes"
        lines += ["", f"Not run: {listed}."]
    if result["failed"]:
        lines += ["", "## Not measured", ""]
        lines += [f"- `{f['recipe']}` (seed {f['seed']}): {f['reason']}" for f in result["failed"]]
    return "\n".join(lines) + "\n"


def span(row: Mapping[str, Any]) -> str:
    """Difference with its interval, and what was claimed of it."""
    if row["difference"] is None:
        return "–"
    if row["low"] is None:
        return row["note"] or "–"
    claim = f"; claimed {'at least ' if row['kind'] == 'increasing' else 'no less than -'}{row['gap']:g}"
    unit = " dB" if row["metric"].endswith("_db") else f" {row['metric']}"
    said = f"{row['difference']:+.3g}{unit} [{row['low']:+.3g}, {row['high']:+.3g}]"
    return said + (claim if row["gap"] else "")


def _made_by(result: Mapping[str, Any]) -> str:
    about = result["about"]
    versions = ", ".join(f"{k} {v}" for k, v in sorted(about["versions"].items()))
    missing = f" Not measured: {'; '.join(not_measured(result))}."
    count = about.get("merged", 1)
    merged = "" if count < 2 else f" Put together from {count} calls that shared these recipes among them."
    return (
        f"`{about['command']}` on {about['hardware']}, {about['date']}, commit {about['commit']} "
        f"({versions}). {about['n']} pictures at each of {about['seeds']} seeds, {about['steps']} steps, "
        f"guidance {about['guidance']:g}; conditions: {about['conditions']}. Recording "
        f"{about['recording'][:12]}.{merged}{missing}"
    )


def _name(row: Mapping[str, Any]) -> str:
    return row["recipe"] if row["recipe"] in (FULL, OTHER_SEED) else _code(row["recipe"])


def _code(text: str) -> str:
    return text if text == OTHER_SEED else f"`{text}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]
