"""The app as a whole: pages in tabs, state from the link, one queue for the device; bound to loopback."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from lab.app import brain_page, inspect_page, links, models_page, runs_page
from lab.app.theme import CSS, theme
from lab.app.work import sentence
from lab.jobs.brain import decode
from lab.jobs.models import plan, variants, whatif

PAGES = {"inspect": whatif.Settings, "plan": plan.Settings, "compare": variants.Settings, "brain": decode.Settings}
LOOPBACK = "127.0.0.1"


def build() -> Any:
    """Return the app as Gradio blocks; nothing is computed yet."""
    from lab import zoo

    models = [name for name in reversed(zoo.DENOISERS) if name in zoo.names()]
    with gr.Blocks(title="brainit-lab", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown(
            "# brainit-lab\n"
            "What low-bit numbers do to a diffusion model, and what can be read from fMRI through it."
        )
        fault = gr.Markdown(visible=False, elem_classes="fault")
        pages = {}
        with gr.Tabs() as tabs:
            with gr.Tab("Inspect", id="inspect"):
                pages["inspect"] = inspect_page.build(models)
            with gr.Tab("Plan and apply", id="plan"):
                pages["plan"] = models_page.build_plan(models)
            with gr.Tab("Compare", id="compare"):
                pages["compare"] = models_page.build_compare(models)
            with gr.Tab("Brain", id="brain"):
                pages["brain"] = brain_page.build()
            with gr.Tab("Runs", id="runs"):
                runs_page.build()
        fields = {(page, name): part for page, laid in pages.items() for name, part in laid["fields"].items()}

        def from_link(request: gr.Request) -> list[Any]:
            """Set the controls from the link's query; a link that is not allowed is named and ignored."""
            shown, chosen, values = gr.Markdown(visible=False), gr.Tabs(), [gr.skip()] * len(fields)
            try:
                found = links.read_link(dict(request.query_params), PAGES)
            except Exception as problem:
                return [gr.Markdown(sentence(problem), visible=True), chosen, *values]
            if found is not None:
                page, settings = found
                chosen = gr.Tabs(selected=page)
                values = [_value(settings, name) if at == page else gr.skip() for at, name in fields]
            return [shown, chosen, *values]

        first, inputs, outputs = pages["inspect"]["first"]
        app.load(
            from_link, None, [fault, tabs, *fields.values()], api_visibility="private", show_progress="hidden"
        ).then(first, inputs, outputs, api_visibility="private", concurrency_id="device")
    return app


def _value(settings: Any, name: str) -> Any:
    value = getattr(settings, name)
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if name == "trials" else list(value)
    return str(value) if name == "folder" else value


def serve(
    host: str = LOOPBACK, port: int | None = None, auth: tuple[str, str] | None = None, wait: bool = True
) -> str:
    """Run the app until it is stopped (or, without ``wait``, in the background); returns its address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    app = build()
    app.queue(default_concurrency_limit=4)
    _, url, _ = app.launch(
        server_name=host, server_port=port, auth=auth, share=False, quiet=True, prevent_thread_lock=not wait,
        theme=theme(), css=CSS, footer_links=[], ssr_mode=False, pwa=False, mcp_server=False,
        show_error=False, enable_monitoring=False, allowed_paths=[], inbrowser=False,
    )  # fmt: skip
    return url
