"""One page over several runs: scores beside each other, a middle picture of each, links to their reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lab.errors import InputError
from lab.figures import choose, metric_rows, picture_png
from lab.figures.brain.scores import KNOWN
from lab.report.block import Block
from lab.report.document import HTMLDocument
from lab.report.page import render_block, render_page
from lab.report.parts import CLAIMS
from lab.report.reportlets import _words
from lab.report.rundata import RunData, read_run

_SHOWN = 3  # pictures a run
_CATEGORY = "category.accuracy"


def build_group_report(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write a page that sets runs beside each other and return its path.

    Parameters
    ----------
    run_dirs : sequence of path
        Run folders with a ``metrics.json`` each.
    out : path, optional
        The file to write; by default ``group.html`` in the folder that holds all runs.

    Raises
    ------
    InputError
        If no folder is given.
    MissingDataError
        If one has no ``metrics.json``.
    """
    if not run_dirs:
        raise InputError("no run folders given; a group page needs at least one")
    folders = [Path(d).resolve() for d in run_dirs]
    if out is None:
        out = Path(os.path.commonpath([f.parent for f in folders])) / "group.html"
    out = Path(out)
    return group_document([read_run(f) for f in folders], out.resolve().parent).save_as_html(out)


def group_document(runs: Sequence[RunData], base: Path) -> HTMLDocument:
    """Return the page over `runs`; links to their reports are relative to `base`."""
    keys = [k for k in KNOWN if any(run.metrics.get(k) is not None for run in runs)]
    names = [run.name for run in runs]
    apart = [
        f"{name} ({run.path.name})" if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]
    labels = [f"{KNOWN[k][0]} {'↑' if KNOWN[k][1] else '↓'}" for k in keys]
    if any(run.categories for run in runs):
        keys, labels = [*keys, _CATEGORY], [*labels, "category accuracy ↑"]
    drawn = [(run, name) for run, name in zip(runs, apart, strict=True) if not run.categories]
    table: dict[str, object] = {
        "heads": labels,
        "tested": "test pictures" if len(drawn) == len(runs) else "test pictures or trials",
        "rows": [_row(run, keys, base) | {"name": name} for run, name in zip(runs, apart, strict=True)],
    }
    same = len({run.tested for run in runs}) == 1
    what = "test pictures" if len(drawn) == len(runs) else "test pictures or trials"
    notes = (
        [CLAIMS] if same else [f"These runs have different {what}; their scores are not a ranking.", CLAIMS]
    )
    simulated = sum(run.simulated for run in runs)
    sections = [
        _section(
            "Scores",
            _intro([run for run, _ in drawn], len(drawn) < len(runs)),
            "group_table",
            table,
        ),
        _section("Claims", "", "notes", {"notes": notes}),
    ]
    if drawn:
        pictures = _section(
            "Pictures",
            "The middle of each run's ranking by PixCorr: stimulus above, reconstruction below.",
            "group_pictures",
            {"runs": [_pictures(run) | {"name": name} for run, name in drawn]},
        )
        sections.insert(1, pictures)
    return render_page(
        title=f"{len(runs)} runs",
        eyebrow="Group",
        heading=f"{len(runs)} runs",
        summary=[f"{', '.join(dict.fromkeys(names))}."],
        banner=f"Simulated subjects: {simulated} of {len(runs)} runs; nobody was measured."
        if simulated
        else "",
        sections=sections,
        problems=[],
    )


def _intro(drawn: Sequence[RunData], categories: bool) -> str:
    said = []
    if drawn:
        low = [run for run in drawn if not run.plain]
        decoder = "Decoder in full precision"
        if low:
            named = (
                "Quantized decoder"
                if len(low) == len(drawn)
                else "Decoder by its recipe (none: not quantized)"
            )
            decoder = f"{named}, bit-widths {_arithmetic(low)}"
        said.append(f"{decoder}; ridge on the same split below each score.")
    if categories:
        said.append(
            "Category accuracy: Brain-IT's, every run left out once, with its 95 % Wilson interval; ridge on "
            "betas and chance below."
        )
    return " ".join(said)


def _arithmetic(runs: Sequence[RunData]) -> str:
    """How the runs' low bit-widths were computed."""
    found = {str(run.metrics.get("arithmetic") or "simulated").split()[0] for run in runs}
    return " or ".join(sorted(found - {"full"}) or ["simulated"])


def _section(title: str, intro: str, template: str, context: dict[str, object]) -> dict[str, object]:
    blocks = [render_block(Block(template, context))]
    return {"id": title.lower(), "title": title, "intro": intro, "blocks": blocks}


def _row(run: RunData, keys: Sequence[str], base: Path) -> dict[str, object]:
    rows = {row.key: row for row in metric_rows(run.metrics)}
    cells = []
    for key in keys:
        if key == _CATEGORY and run.categories:
            cells.append(_accuracy(run))
            continue
        row = rows.get(key)
        if row is None:
            cells.append({"value": "–", "bounds": "", "ridge": ""})
            continue
        ridge = row.cells["ridge"].value
        cells.append(
            _words(row.cells["quantized"], row.digits)
            | {"ridge": "" if ridge is None else f"ridge {ridge:.{row.digits}f}"}
        )
    report = run.path / "report.html"
    return {
        "name": run.name,
        "simulated": run.simulated,
        "recipe": run.metrics.get("recipe", "–"),
        "seed": run.metrics.get("seed", "–"),
        "n_test": run.metrics.get("n_test", "–"),
        "leaks": run.leaks,
        "leaked": run.leaked,
        "link": Path(os.path.relpath(report, base)).as_posix() if report.is_file() else "",
        "cells": cells,
    }


def _accuracy(run: RunData) -> dict[str, str]:
    found = [run.metrics.get(_CATEGORY + end) for end in ("", ".low", ".high")]
    if not all(isinstance(value, int | float) for value in found):
        return {"value": "–", "bounds": "", "ridge": ""}
    value, low, high = (f"{number:.3f}" for number in found)
    beside = {"ridge": run.metrics.get(f"ridge.{_CATEGORY}"), "chance": run.metrics.get("category.chance")}
    words = [f"{name} {number:.3f}" for name, number in beside.items() if isinstance(number, int | float)]
    return {"value": value, "bounds": f"[{low}, {high}]", "ridge": ", ".join(words)}


def _pictures(run: RunData) -> dict[str, object]:
    ours, truth = run.arrays.get("quantized"), run.arrays.get("stimulus")
    if ours is None or truth is None or len(ours) != len(truth):
        return {"name": run.name, "pairs": []}
    score = run.arrays.get("score_pixcorr")
    score = score if score is not None and len(score) == len(ours) else np.zeros(len(ours))
    groups = dict(choose(score, _SHOWN, run.seed))
    middle = groups.get("median", groups["best"])
    pairs = [
        {
            "stimulus": picture_png(truth[i]),
            "ours": picture_png(ours[i]),
            "score": f"{score[i]:.2f}",
            "alt": f"test picture {i} of {run.name}",
        }
        for i in middle
    ]
    return {"name": run.name, "pairs": pairs}
