"""The report of a comparison: verdict, pictures, trade-off, scores, gate; one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import FULL, OTHER_SEED
from lab.compare.tables import NATIVE, NOTES, SIMULATED, cell, not_measured, peaks, shown_columns
from lab.figures.plate import Plate, Provenance, Theme
from lab.figures.tradeoff import Point, errors_over_time, pareto, quality_against_bytes
from lab.files import replacing
from lab.images import write_picture
from lab.report.block import Block, figure, table
from lab.report.compare_pictures import grid, picture_blocks
from lab.report.document import HTMLDocument
from lab.report.page import render_block, render_page

QUALITY = {"psnr_db": "paired PSNR, dB", "latent_sqnr_db": "final-latent SQNR, dB"}


def write_report(result: Mapping[str, Any], pictures: Mapping[str, np.ndarray], out: Path) -> Path:
    """Write ``report.html``, ``grid.webp`` and the figures as PNG into a comparison's folder.

    Parameters
    ----------
    result : mapping
        As `lab.jobs.compare.compare` returns it.
    pictures : mapping of recipe to uint8 array of shape (k, H, W, 3)
        The first pictures of the first seed.
    """
    plates = figures(result)
    for name, plate in plates.items():
        with replacing(out / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(plate("light").png(foot=True))
    if pictures:
        write_picture(grid(_ordered(result, pictures)), out / "grid.webp")
    return document(result, pictures, plates).save_as_html(out / "report.html")


def document(
    result: Mapping[str, Any],
    pictures: Mapping[str, np.ndarray],
    plates: Mapping[str, Callable[[Theme], Plate]] | None = None,
) -> HTMLDocument:
    """Return the page, without writing it; `plates` are its figures where they are drawn already."""
    about = result["about"]
    failed = [g for g in result["gates"] if not g["passed"]]
    plates = figures(result) if plates is None else plates
    sections = [
        _section("Verdict", "", _verdict(result)),
        _section("Pictures", PICTURE_WORDS if pictures else "", picture_blocks(_strips(result, pictures))),
        _section("Trade-off", "", [figure(draw) for draw in plates.values()]),
        _section("Scores", "", [_scores(result), _notes(_said(result)), *_neighbours(result)]),
        _section("Gate", "What must come out if the measuring is right.", [_gates(result)]),
        _section("How it was made", "", _made(result)),
    ]
    return render_page(
        title=f"{about['model']}: {_ways(result, 'recipe')}",
        eyebrow=f"{about.get('execution', 'simulated').capitalize()} low-bit arithmetic",
        heading=f"{about['model']}, quantized in {_ways(result, 'way')}",
        summary=_summary(result),
        banner=""
        if not failed
        else f"The gate failed: {', '.join(g['name'] for g in failed)}. "
        "Read no score before that is explained.",
        sections=[s for s in sections if s["blocks"]],
        problems=[f"{f['recipe']}, seed {f['seed']}: {f['reason']}" for f in result["failed"]],
    )


PICTURE_WORDS = (
    "The first pictures of seed 0, whatever they look like, from best to worst. Below each: ten times the "
    "difference to full precision, around middle grey: black or white from 13 of 255 on."
)


def figures(result: Mapping[str, Any]) -> dict[str, Callable[[Theme], Plate]]:
    """Figures by file name, as functions of the theme; each is drawn once."""
    rows, about = _measured(result), result["about"]
    key = next((k for k in QUALITY if any(k in r for r in rows)), None)
    if key is None or not rows:
        return {}
    arithmetic = f"{about.get('execution', 'simulated')} low-bit arithmetic"
    source = Provenance(about["model"], f"{about['n']} pictures at {_seeds(result)}, {arithmetic}")
    points = _points(rows, key)
    full = next((r["bytes"] for r in result["rows"] if r["recipe"] == FULL), rows[0]["bytes_before"]) / 1e6
    ranked = [r["recipe"] for r in rows]
    named = list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))
    forced = {r["recipe"]: _curve(result, r, "noise_nmse") for r in rows}
    growth = {r["recipe"]: _curve(result, r, "growth") for r in rows}

    def tradeoff(theme: Theme) -> Plate:
        return quality_against_bytes(points, QUALITY[key], full, source, theme)

    def prediction(theme: Theme) -> Plate:
        what = "Prediction error over signal, at full precision's states"
        return errors_over_time(forced, what, source, named, theme)

    def accumulated(theme: Theme) -> Plate:
        return errors_over_time(growth, "State error over signal, along own path", source, named, theme)

    drawn = {"error-timesteps": prediction, "error-growth": accumulated}
    if len({p.megabytes for p in points}) > 1:  # recipes of one size have nothing to trade off
        drawn = {"quality-bytes": tradeoff, **drawn}
    return {name: cache(draw) for name, draw in drawn.items()}


def _ways(result: Mapping[str, Any], word: str) -> str:
    count = len(_measured(result))
    return f"one {word}" if count == 1 else f"{count} {word}s"


def _summary(result: Mapping[str, Any]) -> list[str]:
    about, rows = result["about"], _measured(result)
    lines = [
        f"{about['n']} pictures at {_seeds(result)}, {_steps(about)}, guidance {about['guidance']:g}, "
        f"on {about['hardware']}. Every recipe at the same noise and conditions."
    ]
    key = next((k for k in QUALITY if rows and k in rows[0]), None)
    if key is not None:
        best, small = rows[0], min(rows, key=lambda row: row["bytes"])
        said = [
            f"{r['recipe']} ({_name(key)} {r[key]:.2f} dB, {r['bytes'] / 1e6:.2f} MB)" for r in (best, small)
        ]
        lines.append(
            f"Nearest to full precision: {said[0]}." + (f" Smallest: {said[1]}." if small is not best else "")
        )
    return lines


def _verdict(result: Mapping[str, Any]) -> list[Block]:
    rows = _measured(result)
    key = next((k for k in QUALITY if any(k in r for r in rows)), None)
    if key is None:
        return []
    full = next((r["bytes"] for r in result["rows"] if r["recipe"] == FULL), rows[0]["bytes_before"])
    known = {row["recipe"]: row for row in rows}
    lines = []
    for point in pareto(_points(rows, key)):
        row = known[point.label]
        lines.append({
            "name": point.label, "value": f"{point.value:.2f}", "bounds": f"{point.low:.2f}–{point.high:.2f}",
            "megabytes": f"{point.megabytes:.2f}", "share": f"{row['bytes'] / full:.0%}",
            "bits": f"{row['weight_bits']:.2f}",
        })  # fmt: skip
    return [Block("compare_verdict", {"rows": lines, "quality": QUALITY[key]})]


def _points(rows: list[Mapping[str, Any]], key: str) -> list[Point]:
    return [
        Point(r["recipe"], r["method"], r["bytes"] / 1e6, r[key], r[f"{key}.low"], r[f"{key}.high"])
        for r in rows
        if r.get(key) is not None
    ]


def _notes(text: str) -> Block:
    lines = [f"{line.rstrip('.')}." for line in text.replace("*", "").split(". ")]
    return Block("fold", {"title": "What the columns mean", "lines": lines})


def _said(result: Mapping[str, Any]) -> str:
    native = result["about"].get("execution") == "native"
    return NOTES.replace(SIMULATED, NATIVE) if native else NOTES


def _scores(result: Mapping[str, Any]) -> Block:
    columns = shown_columns(result["rows"])
    lines = []
    for row in result["rows"]:
        cells = []
        for name, _, form, factor in columns:
            low, high = row.get(f"{name}.low"), row.get(f"{name}.high")
            bounded = low is not None and high is not None and high - low > 0
            cells.append({
                "value": cell(row, name, form, factor, bounds=False),
                "bounds": f"{form.format(low * factor)}–{form.format(high * factor)}" if bounded else "",
            })  # fmt: skip
        about = row.get("policy") or ""
        lines.append({"name": row["recipe"], "about": about, "cells": cells,
                      "baseline": row["recipe"] in (FULL, OTHER_SEED)})  # fmt: skip
    return Block("compare_scores", {"heads": [c[1] for c in columns], "rows": lines})


def _gates(result: Mapping[str, Any]) -> Block:
    return Block("compare_gates", {"gates": result["gates"]})


def _neighbours(result: Mapping[str, Any]) -> list[Block]:
    rows = [
        {**n, "span": f"{n['difference']:+.3g} [{n['low']:+.3g}, {n['high']:+.3g}]"}
        for n in result["neighbours"]
    ]
    return [Block("compare_neighbours", {"rows": rows})] if rows else []


def _made(result: Mapping[str, Any]) -> list[Block]:
    about = result["about"]
    pairs = [
        ("conditions", about["conditions"]),
        ("recording", about["recording"]),
        ("bit-operations", about["bit_ops_rule"]),
        ("set distances", f"KID and FD in {LITE0} and {DOMAIN}; the second network is the project's own"),
        ("peak memory", peaks(result["rows"]) or "nothing calibrated here"),
        ("not measured", "; ".join(not_measured(result))),
        ("date, commit", f"{about['date']}, {' and '.join(about.get('commits') or [about['commit']])}"),
        *((k, v) for k, v in sorted(about["versions"].items())),
    ]
    return [Block("command", {"command": about["command"]}), table(pairs)]


def _measured(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [r for r in result["rows"] if r["recipe"] not in (FULL, OTHER_SEED)]


def _ordered(result: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {r["recipe"]: pictures[r["recipe"]] for r in result["rows"] if r["recipe"] in pictures}


def _curve(result: Mapping[str, Any], row: Mapping[str, Any], name: str) -> tuple[str, list, list]:
    curve = result["curves"][row["recipe"]]
    times = list(curve["timestep"])
    values = curve[name]
    return row["method"], times + [0.0] * (len(values) - len(times)), values


def _strips(
    result: Mapping[str, Any], pictures: Mapping[str, np.ndarray]
) -> dict[str, tuple[str, np.ndarray]]:
    known = {row["recipe"]: row for row in result["rows"]}
    out = {}
    for name, strip in _ordered(result, pictures).items():
        value, size = known[name].get("psnr_db"), known[name].get("bytes")
        about = "" if value is None or name == FULL else f"{value:.1f} dB"
        out[name] = (about + (f", {size / 1e6:.2f} MB" if about and size else ""), strip)
    return out


def _section(title: str, intro: str, blocks: list[Block]) -> dict[str, Any]:
    name = title.lower().replace(" ", "-")
    return {"id": name, "title": title, "intro": intro, "blocks": [render_block(b) for b in blocks]}


def _steps(about: Mapping[str, Any]) -> str:
    of = f" of {about['scheduler']}" if "scheduler" in about else ""
    return f"{about['steps']} step{'s' if about['steps'] > 1 else ''}{of}"


def _seeds(result: Mapping[str, Any]) -> str:
    """Say at how many seeds recipes were measured: fewer than were asked for where one failed."""
    asked, found = result["about"]["seeds"], sorted({row["seeds"] for row in _measured(result)})
    if found and found != [asked]:
        return f"{found[0]}{f' to {found[-1]}' if len(found) > 1 else ''} of {asked} seeds"
    return "one seed" if asked == 1 else f"each of {asked} seeds"


def _name(key: str) -> str:
    return QUALITY[key].removesuffix(", dB")
