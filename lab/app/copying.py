"""What leaves a page: its state in four forms (link, command line, Python, JSON), and a page to hand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app import links
from lab.app.work import canceller, failed, stream
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


def in_address(done: Any, link: Any) -> None:
    """Put a link that an event has made into the browser's address; the page stays as it is.

    Parameters
    ----------
    done : gradio event
    link : gradio component
        Its box, the first of `copy_box`.
    """
    done.then(None, link, None, js="(link) => { if (link) window.brainlabAt?.(link); }",
              api_visibility="private", show_progress="hidden", queue=False)  # fmt: skip


def run_of(home: Path, job: str, values: Mapping[str, Any], stem: str) -> Any:
    """Return a job's settings with a run folder of its own: the same question has the same run."""
    from lab.jobs import registry
    from lab.runs.folder import config_hash

    asked = registry.settings(job, {**values, "out": home})
    name = f"{stem}-{config_hash(asked.model_dump(mode='json', exclude={'out'}))}"
    return registry.settings(job, {**values, "out": home / name})


def page_box(
    name: str, home: Path, words: str, job: str, asked: Callable[..., tuple[Mapping[str, Any], str]],
    controls: Sequence[Any],
) -> None:  # fmt: skip
    """Lay out a button that has a job write its run folder with a page, which is found under Runs.

    Parameters
    ----------
    name : str
        Of what is written, as in ``inspect-page``.
    home : Path
        Folder of the runs.
    words : str
        On the button.
    job : str
        Its name, as the command line has it.
    asked : callable
        Gets the controls' values; returns the job's settings without ``out``, and how the folder's name
        begins.
    controls : sequence of gradio component
    """
    page = f"{name}-page"
    with gr.Row(equal_height=True):
        write = gr.Button(words, elem_id=page, scale=3, min_width=300)
        stop = gr.Button("Cancel", variant="stop", scale=1, min_width=100)
    status, hidden = gr.Markdown(elem_id=f"{page}-status"), gr.Gallery(visible=False)

    def write_page(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
        from lab.jobs import registry

        try:
            settings = run_of(home, job, *asked(*given))
        except Exception as fault:
            yield [failed(fault), gr.skip()]
            return
        run = settings.out.name
        for said in stream(
            lambda: (partial(registry.run, job, settings), lambda found: []), 0, page, request, stays=run
        ):
            yield [f"Done: open `{run}` under *Runs*." if said[0] == "Done." else said[0], gr.skip()]

    write.click(write_page, list(controls), [status, hidden], api_visibility="private",
                show_progress="hidden", concurrency_limit=None)  # fmt: skip
    stop.click(canceller(page), None, status, api_visibility="private", queue=False)
