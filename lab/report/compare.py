"""The report of a comparison: gates, table, figures, pictures, orderings; one self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import FULL, OTHER_SEED
from lab.compare.tables import COLUMNS, NOTES, cell, not_measured, peaks, shown_columns, span
from lab.figures.plate import Plate, Provenance
from lab.figures.tradeoff import Point, errors_over_time, quality_against_bytes
from lab.files import replacing
from lab.images import write_picture
from lab.report.block import Block, figure, sentence, table
from lab.report.document import HTMLDocument
from lab.report.page import render_block, render_page

MARKS = {
    "held": ("✓ held", "good"), "undecided": ("? not distinguishable", ""), "smaller": ("≈ smaller", "warn"),
    "reversed": ("✗ reversed", "bad"), "not run": ("– not run", "quiet"),
}  # fmt: skip
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
    for name, plate in figures(result).items():
        with replacing(out / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(plate("light").png(foot=True))
    if pictures:
        write_picture(grid(_ordered(result, pictures)), out / "grid.webp")
    return document(result, pictures).save_as_html(out / "report.html")


def document(result: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> HTMLDocument:
    """Return the page, without writing it."""
    about = result["about"]
    failed = [g for g in result["gates"] if not g["passed"]]
    plates = figures(result)
    sections = [
        _section("Gates", "What must come out if the measuring is right; run at seed 0.", _gates(result)),
        _section("Scores", NOTES.replace("*", ""), [_scores(result)]),
        _section("Trade-offs", "", [figure(draw) for draw in plates.values()]),
        _section("Pictures", _picture_words(about), _pictures(result, pictures)),
        _section("Orderings", _ORDERING_WORDS, [_orderings(result)]),
        _section("Neighbours", _NEIGHBOUR_WORDS, [_neighbours(result)]),
        _section("How it was made", "", _made(result)),
    ]
    return render_page(
        title=f"{about['model']}: {len(_measured(result))} recipes",
        eyebrow="Simulated low-bit arithmetic",
        heading=f"{about['model']}, quantized {len(_measured(result))} ways",
        summary=_summary(result),
        banner=""
        if not failed
        else f"{len(failed)} of {len(result['gates'])} gates failed: "
        f"{', '.join(g['name'] for g in failed)}. Read no score before that is explained.",
        sections=[s for s in sections if s["blocks"]],
        problems=[f"{f['recipe']}, seed {f['seed']}: {f['reason']}" for f in result["failed"]],
    )


_ORDERING_WORDS = (
    "Claims of the methods' publications, judged on these numbers: better minus worse with its 95 % interval "
    "over seeds and pictures. Held: the interval lies beyond the claim; smaller: the order holds, not the "
    "claimed gap; reversed: the interval lies on the other side."
)
_NEIGHBOUR_WORDS = (
    "Each recipe against the next one in the ranking, picture by picture: where 0 lies in the interval the "
    "two cannot be told apart here."
)


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by file name, as functions of the theme."""
    rows, about = _measured(result), result["about"]
    key = next((k for k in QUALITY if any(k in r for r in rows)), None)
    if key is None or not rows:
        return {}
    source = Provenance(about["model"], f"{about['n']} pictures at {_seeds(about)}")
    points = [
        Point(r["recipe"], r["method"], r["bytes"] / 1e6, r[key], r[f"{key}.low"], r[f"{key}.high"])
        for r in rows
        if r.get(key) is not None
    ]
    full = next((r["bytes"] for r in result["rows"] if r["recipe"] == FULL), rows[0]["bytes_before"]) / 1e6
    ranked = [r["recipe"] for r in rows]
    named = list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))
    forced = {r["recipe"]: _curve(result, r, "noise_nmse") for r in rows}
    growth = {r["recipe"]: _curve(result, r, "growth") for r in rows}

    def tradeoff(theme: Any) -> Plate:
        return quality_against_bytes(points, QUALITY[key], full, source, theme)

    def prediction(theme: Any) -> Plate:
        what = "Prediction error over signal, at full precision's states"
        return errors_over_time(forced, what, source, named, theme)

    def accumulated(theme: Any) -> Plate:
        return errors_over_time(growth, "State error over signal, along own path", source, named, theme)

    drawn = {"error-timesteps": prediction, "error-growth": accumulated}
    # recipes of one size have nothing to trade off
    return {"quality-bytes": tradeoff, **drawn} if len({p.megabytes for p in points}) > 1 else drawn


def grid(rows: Mapping[str, np.ndarray], label_width: int = 300) -> np.ndarray:
    """Lay pictures out, one row a recipe with its name at the left: uint8 (h, w, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(iter(rows.values())).shape[1:3]
    columns = max(len(strip) for strip in rows.values())
    gap = 2
    sheet = Image.new("RGB", (label_width + columns * (width + gap), len(rows) * (height + gap)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for r, (name, strip) in enumerate(rows.items()):
        top = r * (height + gap)
        pen.text((6, top + height / 2 - 8), _short(name, 40), fill="black", font=font)
        for c, picture in enumerate(strip):
            sheet.paste(Image.fromarray(picture), (label_width + c * (width + gap), top))
    return np.asarray(sheet)


def _summary(result: Mapping[str, Any]) -> list[str]:
    about, rows = result["about"], _measured(result)
    lines = [
        f"{about['n']} pictures at {_seeds(about)}, "
        f"{about['steps']} steps, guidance {about['guidance']:g}, on {about['hardware']}. Every recipe at "
        "the same noise and conditions."
    ]
    counts = {mark: sum(o["verdict"] == mark for o in result["orderings"]) for mark in MARKS}
    judged = sum(counts.values()) - counts["not run"]
    passed = sum(g["passed"] for g in result["gates"])
    gates = f"{passed} of {len(result['gates'])} gates passed" if result["gates"] else "gates were not run"
    if rows:
        best = rows[0]
        key = next((k for k in QUALITY if k in best), None)
        said = f"{best['recipe']} is nearest to full precision" + (
            f" ({QUALITY[key].removesuffix(', dB')} {best[key]:.2f} dB)" if key else ""
        )
        lines.append(
            f"{said}; {gates}; of {judged} claimed orderings {counts['held']} held, {counts['reversed']} "
            "reversed."
        )
    return lines


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


def _gates(result: Mapping[str, Any]) -> list[Block]:
    if not result["gates"]:
        return [sentence("The gates were not run: nothing here shows that the meter works.")]
    return [Block("compare_gates", {"gates": result["gates"]})]


def _orderings(result: Mapping[str, Any]) -> Block:
    order = list(MARKS)
    rows = []
    absent = [o for o in result["orderings"] if o["verdict"] == "not run"]
    for o in result["orderings"]:
        if o["verdict"] == "not run":
            continue
        mark, kind = MARKS[o["verdict"]]
        note = o["note"] if o["kind"] != "null" else ""
        rows.append({**o, "mark": mark, "class": kind, "span": span(o), "note": note})
    counts = [f"{MARKS[k][0]}: {sum(o['verdict'] == k for o in result['orderings'])}" for k in order]
    return Block("compare_orderings", {"rows": rows, "counts": counts, "absent": absent})


def _neighbours(result: Mapping[str, Any]) -> Block:
    rows = [
        {**n, "span": f"{n['difference']:+.3g} [{n['low']:+.3g}, {n['high']:+.3g}]"}
        for n in result["neighbours"]
    ]
    if not rows:
        return sentence("One recipe has no neighbour.")
    return Block("compare_neighbours", {"rows": rows})


def _pictures(result: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> list[Block]:
    if not pictures:
        return [sentence("This model has no decoder here, so only latents were compared.")]
    ranked = _ordered(result, pictures)
    strips = [{"name": name, "src": _strip(strip), "width": strip.shape[0] * strip.shape[2]}
              for name, strip in ranked.items()]  # fmt: skip
    height = next(iter(pictures.values())).shape[1]
    return [Block("compare_pictures", {"strips": strips, "height": height})]


def _made(result: Mapping[str, Any]) -> list[Block]:
    about = result["about"]
    pairs = [
        ("conditions", about["conditions"]),
        ("recording", about["recording"]),
        ("bit-operations", about["bit_ops_rule"]),
        ("set distances", f"KID and FD in {LITE0} and {DOMAIN}; the second network is the project's own"),
        ("peak memory", peaks(result["rows"]) or "nothing calibrated here"),
        ("not measured", "; ".join(not_measured(result))),
        ("date, commit", f"{about['date']}, {about['commit']}"),
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


def _picture_words(about: Mapping[str, Any]) -> str:
    return (
        "The first pictures of seed 0, whatever they look like; rows from best to worst by the ranking. "
        f"Conditions: {about['conditions']}."
    )


def _strip(pictures: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(buffer, "WEBP", quality=92, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _section(title: str, intro: str, blocks: list[Block]) -> dict[str, Any]:
    name = title.lower().replace(" ", "-")
    return {"id": name, "title": title, "intro": intro, "blocks": [render_block(b) for b in blocks]}


def _seeds(about: Mapping[str, Any]) -> str:
    return "one seed" if about["seeds"] == 1 else f"each of {about['seeds']} seeds"


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


__all__ = ["COLUMNS", "document", "figures", "grid", "write_report"]
