"""Kernels: what the committed benchmark measured, next to bf16 on the same shape."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app.controls import unchecked
from lab.app.work import answer, stream
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.bench import shape

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
HEADERS = ["what", "time, µs", "times as fast as bf16", "relative error", "least time, µs"]
MINE = [*HEADERS[:2], "times as fast as full precision", *HEADERS[3:]]
_WIDTHS: Any = ["40%", "15%", "15%", "15%", "15%"]
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
        "colon are one step of a layer, not all of it. Point at a mark in the figure for its row."
    )
    return [[row[field] or "-" for field in _FIELDS] for row in mine], words


def kind_of(row: dict[str, str]) -> str:
    """Return what a row times: bf16, a whole product or layer in few bits, one step of it, or torch's own."""
    what = row["what"]
    if what == "bf16":
        return what
    if row["peer"] == "1":
        return "torch's own"
    return "one step of a layer" if ": " in what or what.startswith("quantize") else "low-bit"


def floors(rows: list[dict[str, str]], shape: str) -> Any:
    """Draw a shape's measured times against the least that memory and arithmetic allow."""
    from lab.figures.interactive.views import roofline

    mine = [row for row in rows if row["shape"] == shape and float(row["floor_us"] or 0) > 0]
    points = [
        (row["what"], float(row["floor_us"]), float(row["us"]), kind_of(row)) for row in mine if row["us"]
    ]
    return roofline(points, f"{shape} on one {mine[0]['device']}: measured against the least time")


def build(rows: list[dict[str, str]]) -> None:
    """Lay the page out."""
    gr.Markdown(
        "How fast is a low-bit product on the hardware that has it, for which shape?", elem_classes="lead"
    )
    if rows:
        _committed(rows)
    _mine()


def _committed(rows: list[dict[str, str]]) -> None:
    names = shapes(rows)
    table, words = of_shape(rows, names[0])
    with gr.Row():
        with gr.Column(scale=3, min_width=340):
            shape = gr.Dropdown(names, value=names[0], label="Shape: rows x inner x outer of a product",
                                info="of attention: batch x heads x queries x keys x width",
                                elem_id="kernel-shape")  # fmt: skip
            note = gr.Markdown(words, elem_classes="source")
            shown = gr.Dataframe(
                table, headers=HEADERS, interactive=False, wrap=True, max_height=560, elem_id="kernels",
                elem_classes="short",
                column_widths=_WIDTHS,
            )  # fmt: skip
        with gr.Column(scale=2, min_width=340):
            plot = gr.Plot(floors(rows, names[0]), show_label=False)

    @answer
    def kernels(shape: str) -> Any:
        """Show the kernel benchmark of a shape."""
        return *of_shape(rows, shape), floors(rows, shape)

    shape.change(kernels, shape, [shown, note, plot], api_name="kernels", concurrency_limit=None)


def _mine() -> None:
    with gr.Accordion("My shape, measured on this machine", open=True, elem_id="my-shape"):
        with gr.Row():
            sizes = [
                unchecked(gr.Number(1024, label=label, min_width=120))
                for label in ("Rows (tokens x batch)", "Inner channels", "Outer channels")
            ]
            go = gr.Button("Measure", variant="primary", elem_id="measure-shape", min_width=120)
        status, hidden = gr.Markdown(elem_id="shape-status"), gr.Gallery(visible=False)
        table = gr.Dataframe(
            headers=MINE,
            interactive=False,
            wrap=True,
            visible=False,
            elem_id="shape-table",
            elem_classes="short",
            column_widths=_WIDTHS,
        )

    def measure_shape(rows: float, inner: float, outer: float, request: gr.Request) -> Iterator[list[Any]]:
        """Time one product on this machine: native with a GPU, else what the simulation costs."""

        def prepare() -> Any:
            sizes = zip(("rows", "inner", "outer"), (rows, inner, outer), strict=True)
            given = {name: "" if size is None else size for name, size in sizes}  # never another one's
            settings: Any = registry.settings("bench shape", given)

            def show(found: shape.Result) -> list[Any]:
                rows = [[row[field] or row["note"] or "-" for field in _FIELDS] for row in found.rows]
                return [
                    gr.Dataframe(rows, visible=True),
                    f"**{settings.rows}x{settings.inner}x{settings.outer}, {found.arithmetic}**, on "
                    f"{found.device}.",
                ]

            return partial(registry.run, "bench shape", settings), show

        for words, pictures, found, where in stream(prepare, 2, "shape", request):
            yield [where if words == "Done." else words, pictures, found]

    go.click(measure_shape, sizes, [status, hidden, table], api_name="measure_shape",
             concurrency_limit=None, show_progress="hidden")  # fmt: skip
