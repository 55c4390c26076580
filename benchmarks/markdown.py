"""A comparison as Markdown, for a repository: main columns, gates, orderings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.compare.recipes import FULL, OTHER_SEED
from lab.compare.tables import NOTES, PEAK_HOW, cell, not_measured, peaks, shown_columns

LISTED = 8
"""Claims that were not run are named up to so many."""
ALT = "Quality over stored size, by recipe"


def to_markdown(result: Mapping[str, Any], figure: str | None = None, title: str = "", alt: str = ALT) -> str:
    """Write the main columns, gates and orderings, for a repository; `figure` lies beside the file."""
    about, rows = result["about"], result["rows"]
    columns = shown_columns(rows)
    lines = [
        f"# {title or 'Post-training quantization of ' + about['model']}",
        "",
        _made_by(result),
        "",
        NOTES,
        "",
    ]
    lines += [f"![{alt}]({figure})", ""] if figure else []
    lines += table(
        ["recipe", *(c[1] for c in columns)],
        [[_name(row), *(cell(row, c[0], c[2], c[3]) for c in columns)] for row in rows],
    )
    places = [row["calibrate_on"] for row in rows if row.get("calibrate_on")]
    counts = ", ".join(f"{places.count(place)} on {place}" for place in sorted(set(places)))
    lines += ["", f"Calibrated: {counts} (`calibrate_on` in the CSV)."] if counts else []
    lines += ["", f"Peak memory: {peaks(rows)} (`{PEAK_HOW}`)."] if peaks(rows) else []
    seeds = {row["seeds"] for row in rows}
    notes = ["Not every recipe was measured at every seed; differences are over seeds that both have."]
    notes = notes if len(seeds) > 1 else []
    if 1 in seeds:
        notes.append("Of one seed an interval covers pictures only, not other noise and another calibration.")
    lines += ["", " ".join(notes)] if notes else []
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
    lines += table(
        ["gate", "expected", "found", ""],
        [[g["name"], g["expected"], g["found"], "passed" if g["passed"] else "**failed**"]
         for g in result["gates"]],
    )  # fmt: skip
    lines += [
        "",
        "## Orderings",
        "",
        "Better minus worse, 95 % interval over seeds and pictures, each claim by itself.",
        "",
    ]
    judged = [o for o in result["orderings"] if o["verdict"] != "not run"]
    absent = [o for o in result["orderings"] if o["verdict"] == "not run"]
    lines += table(["claim", "worse", "better", "difference", "verdict", "source"], [
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
    commits, devices = (
        " and ".join(about.get(f"{name}s") or [about[was]])
        for name, was in (("commit", "commit"), ("device", "hardware"))
    )
    seeds = max((row["seeds"] for row in result["rows"]), default=about["seeds"])
    at = "one seed" if seeds == 1 else f"each of {seeds} seeds"
    return (
        f"`{about['command']}` on {devices}, {about['date']}, commit {commits} "
        f"({versions}). {about['n']} pictures at {at}, {about['steps']} steps, "
        f"guidance {about['guidance']:g}; conditions: {about['conditions']}. Recording "
        f"{about['recording'][:12]}.{missing}"
    )


def _name(row: Mapping[str, Any]) -> str:
    return row["recipe"] if row["recipe"] in (FULL, OTHER_SEED) else _code(row["recipe"])


def _code(text: str) -> str:
    return text if text == OTHER_SEED else f"`{text}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]
