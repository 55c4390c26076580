"""The fold of Compare that quantizes one layer at a time: which layers suffer most."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from lab.app.plan.form import presets
from lab.app.work import canceller, stream
from lab.cache import cache_folder
from lab.jobs import registry
from lab.jobs.models import sensitivity

HEADERS = ["layer", "SQNR of the prediction, dB"]


def curve(found: sensitivity.Result) -> Any:
    """Draw the sorted layers of a finished measurement."""
    from lab.figures.interactive.views import sorted_dots

    rows = [(row["layer"], float(row[found.metric])) for row in found.rows]
    how = "quantized alone" if found.mode == "one-on" else "left in full precision alone"
    many = "1 layer" if len(rows) == 1 else f"{len(rows)} layers, each"
    return sorted_dots(rows, HEADERS[1], f"{found.model}, {found.recipe} (simulated): {many} {how}")


def asked(model: str, recipe: str, layers: str, mode: str) -> Any:
    """Check what the controls say; the table lies in the cache, and is gone on with."""
    from lab.runs.folder import config_hash

    given = {"model": model, "recipe": recipe, "layers": layers or "*", "mode": mode, "samples": 2,
             "timesteps": 2, "growth": False}  # fmt: skip
    name = f"sensitivity-{config_hash(given)}.json"
    return registry.settings("sensitivity", {**given, "out": cache_folder("app") / name})


def build(model: Any) -> None:
    """Lay the fold out below Compare's pictures.

    Parameters
    ----------
    model : gradio component
        Which says the model.
    """
    with gr.Accordion("Which layers suffer most?", open=False, elem_id="sensitivity"):
        with gr.Row():
            recipe = gr.Dropdown(presets(), value="rtn-w4a4", label="Recipe (simulated)",
                                 allow_custom_value=True, scale=2)  # fmt: skip
            layers = gr.Textbox(
                "*attn2*", label="Layers", info="a wildcard; * is all, and takes minutes", scale=1
            )
            mode = gr.Radio(
                [("one quantized", "one-on"), ("all but one", "one-off")], value="one-on", label="At a time"
            )
        with gr.Row():
            go = gr.Button("Measure layer by layer", elem_id="measure-layers")
            stop = gr.Button("Cancel", variant="stop")
        status, hidden = gr.Markdown(elem_id="layers-status"), gr.Gallery(visible=False)
        plot = gr.Plot(show_label=False)
        table = gr.Dataframe(headers=HEADERS, interactive=False, max_height=320, column_widths=["70%", "30%"])

    def layer_sensitivity(
        model: str, recipe: str, layers: str, mode: str, request: gr.Request
    ) -> Iterator[list[Any]]:
        """Quantize one layer at a time (or all but one) and measure its prediction (simulated)."""

        def prepare() -> Any:
            settings = asked(model, recipe, layers, mode)

            def show(found: sensitivity.Result) -> list[Any]:
                rows = [[row["layer"], round(row[found.metric], 2)] for row in found.rows]
                return [curve(found), rows]

            return partial(registry.run, "sensitivity", settings), show

        yield from stream(prepare, 2, "sensitivity", request)

    go.click(
        layer_sensitivity, [model, recipe, layers, mode], [status, hidden, plot, table],
        api_name="sensitivity", concurrency_limit=None, show_progress="hidden",
    )  # fmt: skip
    stop.click(canceller("sensitivity"), None, status, api_visibility="private", queue=False)
