"""Runs: every run folder below one place, its settings, scores and report; two runs side by side."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app.work import answer
from lab.errors import InputError

HOME = Path("runs")
HEADERS = ["run", "kind", "state", "changed"]


def found_runs(home: Path) -> list[list[str]]:
    """Rows of the run folders below a place (two levels), newest first.

    Raises
    ------
    InputError
        The place is not a folder.
    """
    if not home.is_dir():
        raise InputError(f"{home}: not a folder; give the folder in which runs are made (default: runs)")
    rows = []
    for config in [*home.glob("*/config.yaml"), *home.glob("*/*/config.yaml")]:
        folder = config.parent
        from time import localtime, strftime

        state = "finished" if (folder / "done.json").is_file() else "stopped or running"
        stamp = config.stat().st_mtime
        when = strftime("%Y-%m-%d %H:%M", localtime(stamp))
        rows.append((stamp, [str(folder.relative_to(home)), _kind(folder), state, when]))
    return [row for _, row in sorted(rows, reverse=True)]


def _kind(folder: Path) -> str:
    for name, kind in (("ledger.json", "quantize"), ("bits.csv", "bits"), ("observation", "inspect"),
                       ("subject.json", "reconstruct"), ("results.csv", "compare")):  # fmt: skip
        if (folder / name).exists():
            return kind
    return "run"


def _within(home: str, run: str) -> Path:
    """Return a run's folder; refuse what lies outside of the place."""
    place = Path(home).resolve()
    folder = (place / run).resolve()
    if not folder.is_relative_to(place) or not (folder / "config.yaml").is_file():
        raise InputError(f"{run[:60]!r}: not a run below {place}; pick one of the list")
    return folder


def opened(home: str, run: str) -> tuple[str, str, str]:
    """Return a run's report as a frame without scripts of the app, its settings, its scores."""
    folder = _within(home, run)
    pages = [folder / name for name in ("report.html", "index.html") if (folder / name).is_file()]
    if pages:
        data = base64.b64encode(pages[0].read_bytes()).decode()
        # a frame of another origin: what a report holds cannot touch the app
        frame = (
            f'<iframe title="report of {_plain(run)}" sandbox="allow-scripts" '
            'style="width:100%;height:900px;border:1px solid #8884" '
            f'src="data:text/html;base64,{data}"></iframe>'
        )
    else:
        frame = "<p>This run has no report yet; the same command goes on with it.</p>"
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    scores = folder / "metrics.json"
    return frame, config, scores.read_text(encoding="utf-8") if scores.is_file() else "{}"


def differences(home: str, first: str, second: str) -> list[list[Any]]:
    """Rows of what two runs' scores differ in."""
    from lab.runs.metrics import flat, read_metrics

    left, right = (flat(read_metrics(_within(home, run))) for run in (first, second))
    rows = []
    for name in sorted(set(left) | set(right)):
        a, b = left.get(name), right.get(name)
        if a != b:
            gap = f"{b - a:+.4g}" if isinstance(a, int | float) and isinstance(b, int | float) else ""
            rows.append([name, _shown(a), _shown(b), gap])
    return rows


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _plain(text: str) -> str:
    from html import escape

    return escape(text, quote=True)


def build() -> None:
    """Lay the page out."""
    gr.Markdown(
        "Every run is a folder. Click one for its report; name a second one to compare their scores.",
        elem_classes="lead",
    )
    with gr.Row():
        home = gr.Textbox(str(HOME), label="Folder with runs", max_lines=1)
        refresh = gr.Button("List", variant="primary", elem_id="list-runs")
    table = gr.Dataframe(headers=HEADERS, interactive=False, label="Runs, newest first", max_height=260,
                         elem_id="runs")  # fmt: skip
    chosen = gr.Textbox(label="Run", max_lines=1)
    with gr.Tabs():
        with gr.Tab("Report"):
            frame = gr.HTML("<p>Pick a run.</p>")
        with gr.Tab("Settings and scores"), gr.Row():
            config = gr.Code(label="config.yaml", language="yaml", interactive=False)
            scores = gr.Code(label="metrics.json", language="json", interactive=False)
        with gr.Tab("Compare with"):
            other = gr.Textbox(label="Other run", max_lines=1)
            gap = gr.Dataframe(headers=["score", "first", "second", "difference"], interactive=False)

    @answer([table])
    def list_runs(home: str) -> Any:
        """List the run folders below a place."""
        return found_runs(Path(home))

    @answer([frame, config, scores])
    def open_run(home: str, run: str) -> Any:
        """Show a run's report, settings and scores."""
        return opened(home, run)

    @answer([gap])
    def compare_runs(home: str, first: str, second: str) -> Any:
        """Show what the scores of two runs differ in."""
        return differences(home, first, second)

    def clicked(event: gr.SelectData) -> str:
        return str(event.row_value[0])

    refresh.click(list_runs, home, table, api_name="runs")
    table.select(clicked, None, chosen, api_visibility="private")
    chosen.change(open_run, [home, chosen], [frame, config, scores], api_name="run")
    other.submit(compare_runs, [home, chosen, other], gap, api_name="compare_runs")
