"""The app as a whole: pages in tabs, state from the link, one queue for the device; bound to loopback."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from lab.app import inspect_page, links
from lab.app.theme import CSS, theme
from lab.app.work import sentence
from lab.jobs.models import whatif

PAGES = {"inspect": whatif.Settings}
LOOPBACK = "127.0.0.1"


def build() -> Any:
    """Return the app as Gradio blocks; nothing is computed yet."""
    from lab import zoo

    models = [name for name in reversed(zoo.DENOISERS) if name in zoo.names()]
    with gr.Blocks(title="brainit-lab", analytics_enabled=False, fill_width=True) as app:
        gr.Markdown(
            "# brainit-lab\nWhat low-bit numbers do to a diffusion model, and what can be read from fMRI through it."
        )
        fault = gr.Markdown(visible=False, elem_classes="fault")
        with gr.Tabs() as tabs, gr.Tab("Inspect", id="inspect"):
            inspected = inspect_page.build(models)

        fields = inspected["fields"]

        def from_link(request: gr.Request) -> list[Any]:
            """Set the controls from the link's query; a link that is not allowed is said and ignored."""
            try:
                found = links.read_link(dict(request.query_params), PAGES)
            except Exception as problem:
                return [gr.Markdown(sentence(problem), visible=True), gr.Tabs(), *(gr.skip() for _ in fields)]
            if found is None:
                return [gr.Markdown(visible=False), gr.Tabs(), *(gr.skip() for _ in fields)]
            page, settings = found
            return [
                gr.Markdown(visible=False),
                gr.Tabs(selected=page),
                *(getattr(settings, f) for f in fields),
            ]

        first, inputs, outputs = inspected["first"]
        app.load(
            from_link, None, [fault, tabs, *fields.values()], api_visibility="private", show_progress="hidden"
        ).then(first, inputs, outputs, api_visibility="private", concurrency_id="device")
    return app


def serve(
    host: str = LOOPBACK, port: int | None = None, auth: tuple[str, str] | None = None, wait: bool = True
) -> str:
    """Run the app until it is stopped (or, without ``wait``, in the background); returns its address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    app = build()
    app.queue(default_concurrency_limit=4)
    _, url, _ = app.launch(
        server_name=host, server_port=port, auth=auth, share=False, quiet=True, prevent_thread_lock=not wait,
        theme=theme(), css=CSS, footer_links=[], ssr_mode=False, pwa=False, mcp_server=False, show_error=False,
        enable_monitoring=False, allowed_paths=[], inbrowser=False,
    )  # fmt: skip
    return url
