"""The page of a mark under attack: what it withstands, where it falls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.report.block import Block, table
from lab.report.document import HTMLDocument
from lab.report.page import render_block, render_page

TITLES = {
    "null": ("False positives", "Pictures without this key's mark. None may be accepted."),
    "clean": (
        "The mark itself",
        "Pictures of the marked decoder, stored with 8 bits; PSNR to the unmarked one.",
    ),
    "image": ("Attacks on a picture", "PSNR to the marked picture, where the size is the same."),
    "regeneration": (
        "Drawn again",
        "The picture goes through an unmarked autoencoder, or a short diffusion.",
    ),
    "removal": ("Averaged out", "The mean of many marked pictures' fine texture is taken away from others."),
    "forgery": ("Forged", "A mark put onto pictures that the decoder never made: acceptance is a failure."),
    "training": (
        "Training the decoder",
        "PSNR to the photograph: what the attacker keeps of the decoder's use.",
    ),
}
_HEADS = ["bit error, %", "accepted", "fewest bits", "PSNR, dB"]


def watermark_document(rows: Sequence[dict[str, Any]], rate: float, key: str, note: str = "") -> HTMLDocument:
    """Return the page for rows as `lab.zoo.watermark.evaluation.Attacked` gives them.

    ``note`` says whether the pictures had a say in which training was taken.
    """
    sections = []
    for kind, (title, intro) in TITLES.items():
        mine = [row for row in rows if row["kind"] == kind and "bit_error" in row]
        if mine:
            block = Block(
                "bits_table", {"first": "test", "heads": _HEADS, "rows": [_line(row) for row in mine]}
            )
            sections.append({"id": kind, "title": title, "intro": intro, "blocks": [render_block(block)]})
    checked = [row for row in rows if row["kind"] == "calibration"]
    if checked:
        pairs = [
            (row["name"], f"{row['random_keys']:.4g} over random keys, {row['this_key']:.4g} for this one")
            for row in checked
        ]
        intro = "Share of unmarked pictures that would be accepted at looser rates, beside the nominal one."
        shown = render_block(table(pairs))
        sections.append(
            {"id": "calibration", "title": "Is the rate right?", "intro": intro, "blocks": [shown]}
        )
    return render_page(
        title=f"Watermark {key}", eyebrow="Watermark under attack", heading=f"Watermark {key}",
        summary=[*_summary(rows, rate), *([note] if note else [])], banner="", sections=sections, problems=[],
    )  # fmt: skip


def _line(row: dict[str, Any]) -> dict[str, Any]:
    bounds = f"{100 * row['bit_error_low']:.2f} to {100 * row['bit_error_high']:.2f}"
    psnr = "–" if row.get("psnr_db") is None else f"{row['psnr_db']:.1f}"
    cells = [
        {"value": f"{100 * row['bit_error']:.2f}", "bounds": bounds},
        {"value": f"{row['accepted']} of {row['n']}", "bounds": ""},
        {"value": str(row["fewest_matches"]), "bounds": ""},
        {"value": psnr, "bounds": ""},
    ]
    return {"name": row["name"], "about": "", "cells": cells, "baseline": False}


def _summary(rows: Sequence[dict[str, Any]], rate: float) -> list[str]:
    lines = [
        f"A picture counts as marked where an unmarked one would match as well with a chance of {rate:g}."
    ]
    clean = next((row for row in rows if row["kind"] == "clean"), None)
    if clean:
        lines.append(
            f"Bit error {100 * clean['bit_error']:.2f} % on stored pictures at {clean['psnr_db']:.1f} dB to "
            f"the unmarked decoder; {clean['accepted']} of {clean['n']} accepted."
        )
    fallen = [r["name"] for r in rows if r["kind"] in ("image", "regeneration") and r["accepted_share"] < 0.5]
    steps = [r["steps"] for r in rows if r.get("steps") and r["accepted_share"] < 0.5]
    if steps:
        fallen.append(f"{min(steps)} steps of fine-tuning")
    if fallen:
        lines.append(f"It falls (fewer than half accepted) to: {'; '.join(fallen)}.")
    forged = [r["name"] for r in rows if r["kind"] == "forgery" and r["accepted_share"] > 0.05]
    if forged:
        lines.append(f"It can be forged by: {'; '.join(forged)}.")
    return lines
