"""The fold with a page's state in four forms: link, command line, Python, JSON."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lab.app import links
from lab.jobs.spelling import as_command


def copies(command: str, page: str, settings: Any, positional: str = "model") -> tuple[str, str, str, str]:
    """Return a state in four forms; each gives the same numbers."""
    return (
        links.as_link(page, settings), as_command(command, settings, positional),
        links.as_python(command, settings), links.as_json(settings),
    )  # fmt: skip


def copy_box(name: str) -> tuple[list[Any], Any]:
    """Lay the fold out; returns its four boxes and the fold itself."""
    with gr.Accordion("Copy this state", open=False, elem_id=f"{name}-copy") as fold:
        link = gr.Textbox(
            label="Link", info="after this app's address", interactive=False, buttons=["copy"],
            elem_id=f"{name}-link",
        )  # fmt: skip
        command = gr.Code(
            label="Command line",
            language="shell",
            interactive=False,
            wrap_lines=True,
            elem_id=f"{name}-command",
        )
        python = gr.Code(label="Python", language="python", interactive=False, wrap_lines=True)
        config = gr.Code(label="JSON, for --config", language="json", interactive=False)
    return [link, command, python, config], fold
