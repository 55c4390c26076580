"""Kernels: what the committed benchmark measured, next to bf16 on the same shape."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app.work import answer
from lab.errors import InputError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
HEADERS = ["what", "microseconds", "bf16 time over it", "relative error", "floor, microseconds"]
_FIELDS = ("what", "us", "ratio", "error", "floor_us")


def measured(folder: Path = RESULTS) -> list[dict[str, str]]:
    """Return the rows of the committed kernel benchmark; none where the repository is not there."""
    rows = []
    for file in sorted(folder.glob("kernels-*.csv")):
        if "peers" not in file.stem:
            with file.open(newline="", encoding="utf-8") as handle:
                rows += list(csv.DictReader(handle))
    return rows


def shapes(rows: list[dict[str, str]]) -> list[str]:
    """Return the shapes in the order of the file."""
    return list(dict.fromkeys(row["shape"] for row in rows))


def of_shape(rows: list[dict[str, str]], shape: str) -> tuple[list[list[str]], str]:
    """Return the table of a shape, and where it was measured.

    Raises
    ------
    InputError
        The shape was not measured.
    """
    mine = [row for row in rows if row["shape"] == shape]
    if not mine:
        raise InputError(f"shape {shape[:40]!r} was not measured; there are: {', '.join(shapes(rows)[:8])}")
    first = mine[0]
    words = (
        f"**Native**: measured on one {first['device']} (torch {first['torch']}, Triton {first['triton']}), "
        "medians of graph replays, every row beside bf16 of the same shape; error relative to float64. "
        "On a machine without such a GPU the same recipes run *simulated*, which is not faster. Rows with a "
        "colon are one step of a layer, not all of it."
    )
    return [[row[field] or "-" for field in _FIELDS] for row in mine], words


def build(rows: list[dict[str, str]]) -> None:
    """Lay the page out."""
    gr.Markdown(
        "How fast is a low-bit product on the hardware that has it, for which shape?", elem_classes="lead"
    )
    names = shapes(rows)
    table, words = of_shape(rows, names[0])
    shape = gr.Dropdown(names, value=names[0], label="Shape of the product", elem_id="kernel-shape")
    note = gr.Markdown(words)
    shown = gr.Dataframe(
        table, headers=HEADERS, interactive=False, wrap=True, max_height=640, elem_id="kernels",
        column_widths=["44%", "14%", "14%", "14%", "14%"],
    )  # fmt: skip

    @answer
    def kernels(shape: str) -> Any:
        """Show the kernel benchmark of a shape."""
        return of_shape(rows, shape)

    shape.change(kernels, shape, [shown, note], api_name="kernels", concurrency_limit=None)
