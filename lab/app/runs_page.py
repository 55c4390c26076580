"""Runs: every run folder below one place, its settings, scores and report; two runs side by side."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app import links
from lab.app.copying import in_address
from lab.app.places import run_rows, within
from lab.app.work import answer, at_work, progress_of, stop_run

HEADERS = ["run", "kind", "state", "of", "changed"]
EMPTY = (
    "### No run yet\n**Apply** under *Plan and apply* and **Train** under *Brain* write one; so does, in a "
    "terminal (four minutes, four *simulated* subjects):\n\n`brainlab demo --out {demo}`"
)
PAGES = ("report.html", "index.html", "group.html")
_SAVE = """(run) => {
  const page = document.querySelector("iframe.report");
  if (!page) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([page.srcdoc], {type: "text/html"}));
  link.download = run.replaceAll(/[^A-Za-z0-9_.-]+/g, "-") + ".html";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
_EVERY = 2.0  # seconds between two looks at a run at work
MOST = 12_000_000
"""Bytes of a report that is shown inside the page."""


def opened(home: Path, run: str) -> tuple[str, str, str]:
    """Return a run's report as a frame without scripts of the app, its settings, its scores."""
    said = progress_of(run)
    if said and not (home / run).is_dir():  # it makes its data first
        return f"<p>At work: {escape(said)}</p>", "# not written yet\n", "{}"
    folder = within(home, run)
    page = next((folder / n for n in PAGES if (folder / n).is_file()), None)
    if page is None:
        frame = f"<p>At work: {escape(said)}</p>" if said else f"<p>{_without_page(folder)}</p>"
    elif page.stat().st_size > MOST:
        frame = f"<p>The report is large; open it from the disk: {escape(str(page))}</p>"
    else:
        text = escape(page.read_text(encoding="utf-8", errors="replace"), quote=True)
        # A frame of another origin: what a report holds cannot touch the app. Not a data address: Chromium
        # shows nothing of one above 2 MB.
        frame = (
            f'<iframe title="report of {escape(run, quote=True)}" sandbox="allow-scripts" class="report" '
            f'srcdoc="{text}"></iframe>'
        )
    config, scores = folder / "config.yaml", folder / "metrics.json"
    texts = [
        file.read_text(encoding="utf-8", errors="replace") if file.is_file() else without
        for file, without in ((config, "# one page over the runs inside\n"), (scores, "{}"))
    ]
    return frame, texts[0], texts[1]


def _without_page(folder: Path) -> str:
    if (folder / "ledger.json").is_file():
        return f"A quantized model; what was done to it (each layer: ledger.json):</p>{_ledger(folder)}<p>"
    return "This run has no report yet; the same command goes on with it."


def _ledger(folder: Path) -> str:
    import quant
    from lab.jobs.models import plan

    ledger = quant.Ledger.from_json((folder / "ledger.json").read_text(encoding="utf-8"))
    rows = plan.totals_table(plan.tables(ledger)["totals"]).rows
    cells = [[escape(str(row[key])) for key in ("name", "value")] for row in rows]
    return f"<table>{''.join(f'<tr><th>{name}</th><td>{value}</td></tr>' for name, value in cells)}</table>"


def listed(home: Path) -> list[list[str]]:
    """Rows of all runs; those that this app has begun stand first, also where they have no folder yet."""
    rows = run_rows(home)
    known = {row[0] for row in rows}
    return [[name, "-", "running", "", "now"] for name in at_work() if name not in known] + rows


def _ticking(run: str) -> Any:
    """Return the clock, which goes as long as this app makes a run."""
    return gr.Timer(active=bool(run and progress_of(run)))


def differences(home: Path, first: str, second: str) -> list[list[Any]]:
    """Rows of what two runs' scores differ in."""
    from lab.runs.metrics import flat, read_metrics

    left, right = (flat(read_metrics(within(home, run))) for run in (first, second))
    rows = []
    for name in sorted(set(left) | set(right)):
        a, b = left.get(name), right.get(name)
        if a != b:
            gap = f"{b - a:+.4g}" if isinstance(a, int | float) and isinstance(b, int | float) else ""
            rows.append([name, _shown(a), _shown(b), gap])
    return rows


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def build(home: Path, tab: Any) -> dict[str, Any]:
    """Lay the page out.

    Parameters
    ----------
    home : Path
        Folder of the runs.
    tab : gradio.Tab
        Where it lies; whoever comes to it finds a fresh list.
    """
    gr.Markdown(
        "Every run is a folder. Click one for its report; name a second one to compare their scores. "
        f"Shown are those below `{home.absolute()}`.",
        elem_classes="lead",
    )
    rows = listed(home)
    table = gr.Dataframe(
        headers=HEADERS, value=rows, interactive=False, label="Runs, newest first",
        max_height=280, elem_id="runs", elem_classes="short",
        column_widths=["32%", "13%", "12%", "26%", "17%"],
    )  # fmt: skip
    words = EMPTY.format(demo=home.absolute() / "demo")
    nothing = gr.Markdown(words, visible=not rows, elem_classes="empty")
    with gr.Row(equal_height=True):
        chosen = gr.Textbox(label="Run", max_lines=1, scale=3, elem_id="run")
        refresh = gr.Button("List again", elem_id="list-runs", scale=1, min_width=120)
        stop = gr.Button("Stop this run", variant="stop", elem_id="stop-run", scale=1, min_width=120)
    status = gr.Markdown(elem_id="run-status")
    with gr.Tabs():
        with gr.Tab("Report"):
            save = gr.Button("Save this report as a file", elem_id="save-report", interactive=False)
            frame = gr.HTML("<p>Pick a run.</p>", elem_classes="numbers")
        with gr.Tab("Settings and scores"), gr.Row():
            config = gr.Code(label="config.yaml", language="yaml", interactive=False)
            scores = gr.Code(label="metrics.json", language="json", interactive=False)
        with gr.Tab("Compare two runs"):
            other = gr.Dropdown(
                [row[0] for row in rows], value=None, label="Other run", allow_custom_value=True,
                elem_id="other-run",
            )  # fmt: skip
            gap = gr.Dataframe(headers=["score", "first", "second", "difference"], interactive=False)

    @answer
    def list_runs() -> Any:
        """List the run folders."""
        rows = listed(home)
        return rows, gr.Dropdown(choices=[row[0] for row in rows]), gr.Markdown(visible=not rows)

    @answer
    def open_run(run: str) -> Any:
        """Show a run's report, settings and scores."""
        frame, *texts = opened(home, run)
        return frame, *texts, gr.Button(interactive="<iframe" in frame)

    def linked(run: str) -> list[Any]:
        """Open the run that a link names, or say in its place why that cannot be."""
        if not run:
            return [gr.skip()] * 4
        try:
            return list(open_run(run))
        except gr.Error as fault:
            return [f"<p>{fault.message}</p>", "", "{}", gr.Button(interactive=False)]

    def followed_again(run: str) -> list[Any]:
        """Follow a run at work: how far it is, then its report, which comes by itself."""
        return [*linked(run), *list_runs(), _ticking(run)]

    def link_of(run: str) -> str:
        return links.as_link("runs", links.OfRuns(run=run or ""))

    @answer
    def compare_runs(first: str, second: str) -> Any:
        """Show what the scores of two runs differ in."""
        return differences(home, first, second)

    def clicked(event: gr.SelectData) -> str:
        return str(event.row_value[0])

    quick: dict[str, Any] = {"concurrency_limit": None}
    lists = [table, other, nothing]
    refresh.click(list_runs, None, lists, api_name="runs", **quick)
    tab.select(list_runs, None, lists, api_visibility="private", show_progress="hidden", **quick)
    stop.click(stop_run, chosen, status, api_name="stop_run", **quick)
    shown = [frame, config, scores, save]
    save.click(None, chosen, js=_SAVE, api_visibility="private")
    link = gr.Textbox(visible=False)
    picked = table.select(clicked, None, chosen, api_visibility="private", show_progress="hidden", **quick)
    clock, followed = gr.Timer(_EVERY, active=False), gr.State("")  # the box may say another one meanwhile
    opening = [
        picked.then(open_run, chosen, shown, api_visibility="private", **quick),
        chosen.submit(open_run, chosen, shown, api_name="run", **quick),
    ]
    for one in opening:
        one.then(lambda run: (run, _ticking(run)), chosen, [followed, clock], api_visibility="private",
                 show_progress="hidden", queue=False)  # fmt: skip
        made = one.then(link_of, chosen, link, api_visibility="private", show_progress="hidden", queue=False)
        in_address(made, link)
    clock.tick(followed_again, followed, [*shown, *lists, clock], api_visibility="private",
               show_progress="hidden", **quick)  # fmt: skip
    other.input(compare_runs, [chosen, other], gap, api_name="compare_runs", **quick)
    return {"fields": {"run": chosen}, "linked": (linked, [chosen], shown)}
