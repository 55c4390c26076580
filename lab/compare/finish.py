"""From parts to files: results.json, .csv, .md, the picture grid and the report."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.compare import summary, tables
from lab.compare.measuring import Part
from lab.compare.orderings import judge
from lab.compare.recipes import FULL, OTHER_SEED, one_command
from lab.compare.statistics import Scores
from lab.errors import InputError, MissingDataError
from lab.files import write_json, write_text
from lab.runs.metrics import differences
from lab.runs.settings import read_settings
from lab.runs.steps import StepCache

ABOUT = "about.json"
"""Written when a comparison begins, so that a stopped one can be merged."""


def finish(
    out: Path, about: dict[str, Any], parts: Sequence[Any], gates: list[dict[str, Any]],
    failed: list[dict[str, Any]], publish: Path | None, report: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Compute tables and verdicts from parts, write every file into ``out``, return the result."""
    from lab.report.compare import write_report

    scores = Scores(parts)
    rows = summary.rows(scores)
    key = next((k for k in summary.RANKED_BY if any(k in row for row in rows)), summary.RANKED_BY[-1])
    ranked = [row["recipe"] for row in rows if row["recipe"] not in (FULL, OTHER_SEED)]
    result = {
        "about": about,
        "rows": rows,
        "by_seed": summary.seed_rows(scores),
        "gates": gates,
        "orderings": judge(scores, about["model"]),
        "neighbours": summary.neighbours(scores, ranked, key),
        "curves": {recipe: summary.curves(scores, recipe) for recipe in scores.parts},
        "failed": failed,
    }
    result = _rounded(result)
    pictures = {p.recipe: p.pictures for p in parts if p.seed == 0 and p.pictures is not None}
    write_text(out / "results.csv", tables.to_csv(rows))
    write_text(out / "results.md", tables.to_markdown(result))
    if report:
        write_report(result, pictures, out)
    write_json(out / "results.json", result)
    if publish is not None:
        name = f"{Path(about['model']).name}-ptq"
        if publish.suffix == ".md":
            publish, name = publish.parent, publish.stem
        publish.mkdir(parents=True, exist_ok=True)
        chart = out / "figures" / "quality-bytes.png"
        figure = f"{name}.png" if chart.is_file() else None
        if figure:
            shutil.copyfile(chart, publish / figure)
        else:  # not the one of an earlier table under this name
            (publish / f"{name}.png").unlink(missing_ok=True)
        write_text(publish / f"{name}.md", tables.to_markdown(result, figure))
        write_json(publish / f"{name}.json", {k: v for k, v in result.items() if k != "curves"})
    return result


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _stored_parts(folder: Path) -> list[Part]:
    """All finished parts; of two with one name (a preset that changed) the newer one."""
    cache = StepCache(folder / "steps")
    files = sorted((folder / "steps").glob("*.json"), key=lambda f: (f.stat().st_mtime_ns, f.name))
    found: dict[tuple[str, int], Part] = {}
    for file in files:
        output = cache.load(file.stem)
        if output is not None and "recipe" in output:
            part = Part.from_step(output)
            found[part.recipe, part.seed] = part
    return list(found.values())


def _rounded(value: Any, digits: int = 6) -> Any:
    """Round floats to significant digits and turn what is not finite into None, for JSON."""
    if isinstance(value, dict):
        return {k: _rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def collect(folders: Sequence[Path]) -> tuple[dict[str, Any], list[Part], list[dict[str, Any]], list[Any]]:
    """Read the parts of several comparisons with equal settings: about, parts, gates, failed.

    Raises
    ------
    InputError
        The folders' settings differ, or there are none.
    MissingDataError
        A folder is no comparison.
    """
    if not folders:
        raise InputError("--merge got no folders; give those that compare wrote")
    parts: dict[tuple[str, int], Part] = {}
    gates: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    first: dict[str, Any] | None = None
    about: dict[str, Any] = {}
    machines: list[str] = []
    commands: list[str] = []
    for folder in folders:
        stored, began = _read(folder / "results.json"), _read(folder / ABOUT)
        if not stored and not began:
            raise MissingDataError(f"{folder} holds no comparison ({ABOUT}); give folders that compare wrote")
        settings = read_settings(folder / "config.yaml")
        changed = differences(first, settings) if first is not None else []
        if changed:
            raise InputError(f"{folder} was made with other settings than {folders[0]}: {changed[0]}")
        first = first or settings
        mine = began or stored["about"]
        about = about or mine
        machines.append(mine["hardware"])
        commands.append(mine["command"])
        gates = gates or (StepCache(folder / "steps").load("gates") or {}).get("gates", [])
        failed += [f for f in stored.get("failed", []) if f not in failed]
        for made in _stored_parts(folder):
            parts.setdefault((made.recipe, made.seed), made)
    failed = [f for f in failed if (f["recipe"], f["seed"]) not in parts]
    about = {
        **about,
        "hardware": " and ".join(dict.fromkeys(machines)),
        "command": one_command(commands),
        "merged": len(set(commands)),
    }
    return about, list(parts.values()), gates, failed
