"""The app as a whole: pages in tabs, state from the link, one queue for the device; bound to loopback."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import BaseModel
from starlette.middleware import Middleware

from lab.app import inspect_page, links, overview, runs_page, watermark_page
from lab.app.address import FirstPage
from lab.app.brain import maps
from lab.app.brain import page as brain_page
from lab.app.compare import page as compare_page
from lab.app.kernels import page as kernels_page
from lab.app.places import LOOPBACK, STRANGERS
from lab.app.plan import page as plan_page
from lab.app.theme import CSS, NAMES, theme
from lab.app.work import WORKER, ended, sentence
from lab.errors import InputError
from lab.jobs.brain import decode
from lab.jobs.models import plan, variants, whatif

PAGES: dict[str, type[BaseModel]] = {
    "inspect": whatif.Settings,
    "plan": plan.Settings,
    "compare": variants.Settings,
    "brain": decode.Settings,
    "runs": links.OfRuns,
}
MODEL_PAGES = ("Inspect", "Plan and apply", "Compare")
_OPEN: set[str] = set()
"""Sessions whose page is open."""
REST = 30.0
"""Seconds without any session after which memory is given back."""
SWITCH = 0.001
"""Seconds after which a busy thread lets another one on: an answer changes threads ten times on its way."""
_LINES = ("include", "exclude", "override")


def build(home: Path) -> Any:
    """Return the app as Gradio blocks; nothing is computed yet.

    Parameters
    ----------
    home : Path
        Folder of the runs; no other folder is shown.
    """
    from lab import zoo

    models = [name for name in reversed(zoo.DECODERS) if name in zoo.names()]
    with gr.Blocks(title="brainit-lab", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown(
            "# brainit-lab\n"
            "What low-bit numbers do to a diffusion model, and what can be read from fMRI through it."
        )
        fault = gr.Markdown(visible=False, elem_classes="fault", elem_id="fault")
        pages = {}
        with gr.Row(elem_id="which-model") as bar:
            model = gr.Dropdown(
                models, value=models[0], label="Model of Inspect, Plan and Compare", allow_custom_value=True,
                info="shipped, or the path of a local diffusers folder", elem_id="model", min_width=260,
            )  # fmt: skip
            recording = gr.Textbox(
                "", label="Recording of a model of your own", max_lines=1, elem_id="recording",
                info="folder of brainlab record: what its layers meet; shipped models need none",
                min_width=260,
            )  # fmt: skip
        with gr.Tabs() as tabs:
            with gr.Tab("Inspect", id="inspect"):
                pages["inspect"] = inspect_page.build(model, recording, home)
            with gr.Tab("Plan and apply", id="plan") as tab:
                pages["plan"] = plan_page.build_plan(model, home, tab)
            with gr.Tab("Compare", id="compare"):
                pages["compare"] = compare_page.build_compare(model, recording, home)
            with gr.Tab("Brain", id="brain") as tab:
                pages["brain"] = brain_page.build(home, tab)
            with gr.Tab("Runs", id="runs") as tab:
                pages["runs"] = runs_page.build(home, tab)
            with gr.Tab("Kernels", id="kernels"):
                kernels_page.build(kernels_page.measured())
            with gr.Tab("Watermark", id="watermark"):
                watermark_page.build()
        fields = {("", "model"): model, ("", "recording"): recording}
        fields |= {(page, name): box for page, laid in pages.items() for name, box in laid["fields"].items()}

        def from_link(request: gr.Request) -> list[Any]:
            """Set the controls from the link's query; a link that is not allowed is named and ignored."""
            if not _OPEN:
                threading.Thread(target=WORKER.start, daemon=True).start()
            _OPEN.add(str(request.session_hash or ""))
            shown, chosen, values = gr.Markdown(visible=False), gr.Tabs(), [gr.skip()] * len(fields)
            row = gr.Row()
            try:
                found = links.read_link(dict(request.query_params), PAGES)
            except Exception as problem:
                words = escape(sentence(problem), quote=False)
                return [gr.Markdown(words, visible=True), chosen, row, *values]
            if found is not None:
                page, settings = found
                if isinstance(settings, decode.Settings):
                    with suppress(InputError):  # a folder that is no run is named with its facts
                        settings = brain_page.completed(home, settings)
                chosen, row = gr.Tabs(selected=page), gr.Row(visible=page in ("inspect", "plan", "compare"))
                if settings is not None:
                    values = [
                        _value(settings, name) if at in ("", page) else gr.skip() for at, name in fields
                    ]
            return [shown, chosen, row, *values]

        loaded = app.load(
            from_link, None, [fault, tabs, bar, *fields.values()], api_visibility="private",
            show_progress="hidden", concurrency_limit=None,
        )  # fmt: skip
        first = (pages["inspect"]["first"], pages["brain"]["facts"], pages["runs"]["linked"])
        for function, inputs, outputs in first:
            loaded.then(function, inputs, outputs, api_visibility="private", concurrency_limit=None)
        overview.hand_on(pages["inspect"]["flags"], pages["plan"]["fields"]["exclude"])
        current, recipe = pages["plan"]["current"], pages["brain"]["fields"]["recipe"]
        compared = pages["compare"]["fields"]["recipes"]
        current.change(
            lambda name, chosen: (name or brain_page.NONE, compare_page.joined(name, chosen)),
            [current, compared], [recipe, compared], api_visibility="private",
        )  # fmt: skip
        tabs.select(_bar, None, bar, api_visibility="private", show_progress="hidden", queue=False)
        app.unload(_gone)
    return app


def _bar(event: gr.SelectData) -> Any:
    """Show the model's bar on the pages that take a model."""
    return gr.Row(visible=event.value in MODEL_PAGES)


def _gone(request: gr.Request) -> None:
    """End a session: stop what it waited for; the last one takes models, subjects and networks with it."""
    ended(str(request.session_hash or ""))
    _OPEN.discard(str(request.session_hash or ""))
    if not _OPEN:
        _free_later()  # a page that is loaded again ends its session, too


def _free_later() -> None:
    timer = threading.Timer(REST, _free)
    timer.daemon = True
    timer.start()


def _free() -> None:
    if not _OPEN:
        maps.network_of.cache_clear()
        maps.subject_of.cache_clear()
        if not WORKER.rest():  # a run that stays goes on without a page
            _free_later()


def _value(settings: Any, name: str) -> Any:
    value = getattr(settings, name, None)
    if value is None:
        return gr.skip()
    if isinstance(value, tuple):
        if name in _LINES:
            return "\n".join(value)
        return ",".join(map(str, value)) if name == "trials" else list(value)
    return str(value) if name in ("folder", "recording") else value


def serve(
    host: str, port: int, auth: tuple[str, str] | None = None, home: Path = Path("runs")
) -> tuple[Any, str]:
    """Start the app in the background; returns it (``close()`` ends it) and its address.

    Raises
    ------
    InputError
        The port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    STRANGERS[:] = [] if host in LOOPBACK else [host]
    sys.setswitchinterval(SWITCH)
    app = build(home)
    app.queue(default_concurrency_limit=4)
    try:
        _, url, _ = app.launch(
            server_name=host, server_port=port or None, auth=auth, share=False, quiet=True,
            prevent_thread_lock=True, theme=theme(), css=CSS, js=NAMES, footer_links=[], ssr_mode=False,
            pwa=False, mcp_server=False, show_error=False, enable_monitoring=False, allowed_paths=[],
            inbrowser=False, app_kwargs={"middleware": [Middleware(FirstPage)]},
        )  # fmt: skip
    except OSError as fault:
        raise InputError(
            f"port {port} of {host} cannot be used ({fault}); choose another with --port"
        ) from None
    return app, url


def warm(model: str | None = None) -> threading.Thread:
    """Begin to look at the first model, so that the first visitor finds its picture."""
    from lab import zoo
    from lab.app.inspect_page import seen_by

    name = model or next(name for name in reversed(zoo.DECODERS) if name in zoo.names())

    def look() -> None:
        seen_by(name)
        WORKER.start()  # after the first picture: two at once would be late both
        gc.freeze()  # libraries stay: searching them for garbage would stop every slider for a second

    thread = threading.Thread(target=look, daemon=True, name="first look")
    thread.start()
    return thread
