"""Inspect: what a layer's input looks like, and what a grid would do to it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lab.app import links
from lab.app.work import answer
from lab.jobs.contract import Context
from lab.jobs.models import look, whatif

COLUMNS = ("layer", "channels", "absmax", "rms", "kurtosis", "outlier_share", "drift")
HEADERS = ["layer", "channels", "largest |x|", "rms", "kurtosis", "outliers", "drift over time"]


def settings_of(
    model: str, layer: str, format: str, bits: float, shared: str, clip: float
) -> whatif.Settings:
    """Check what the controls say."""
    return whatif.Settings(model=model, layer=layer, format=format, bits=int(bits), shared=shared, clip=clip)


def seen_by(settings: look.Settings, context: Context | None = None) -> Any:
    """Statistics of a model; looked at once per process."""
    return look.run(settings, context or Context())


def layer_rows(model: str, sort: str = "absmax") -> list[list[Any]]:
    """Rows of the layer table, largest first."""
    table = seen_by(look.Settings(model=model)).layer_table(sort)
    return [[_short(row[c]) for c in COLUMNS] for row in table if row["tensor"] == "input"]


def heat(model: str, layer: str) -> Any:
    """Channel x timestep map of a layer's input."""
    from lab.figures.interactive import channel_timestep_heat

    seen = seen_by(look.Settings(model=model))
    stats = seen.inputs[whatif.layer_of(seen, layer)]
    marked = stats.outlier_channels()
    what = f"Input of {stats.layer}: largest magnitude per channel and timestep"
    note = f" ({len(marked)} outlier channels marked)" if len(marked) else ""
    return channel_timestep_heat(stats.absmax, list(stats.timesteps), what + note, marked)


def bands(model: str, layer: str) -> Any:
    """Ranges of a layer's input over timesteps."""
    from lab.figures.interactive import range_bands

    seen = seen_by(look.Settings(model=model))
    name = whatif.layer_of(seen, layer)
    rows = seen.steps_of(name)
    columns = {k: [row[k] for row in rows] for k in ("min", "p1", "p50", "p99", "max")}
    return range_bands(list(seen.inputs[name].timesteps), columns, f"Input of {name}: range at each timestep")


def rounding(settings: whatif.Settings) -> tuple[Any, str]:
    """Histogram with the grid over it, and the numbers below it."""
    from lab.figures.interactive import level_bars
    from quant.observation import bins

    seen = seen_by(whatif.asked(settings))
    layer, found = whatif.measure(seen, settings)
    stats = seen.inputs[layer]
    grid = whatif.grid_of(settings.format, settings.bits).label
    figure = level_bars(
        stats.histogram.sum(0), bins.edges().numpy(), found.levels, found.low, found.high,
        f"Input of {layer} and the {len(found.levels)} levels of {grid}",
    )  # fmt: skip
    whose = "one scale per tensor" if settings.shared == "tensor" else "one scale per channel (widest drawn)"
    numbers = (
        f"| {grid}, {whose} | *simulated* |\n|---|---|\n"
        f"| mean squared error | {found.mse:.4g} |\n"
        f"| signal to quantization noise | **{found.sqnr_db:.2f} dB** |\n"
        f"| values beyond the range (clipped) | {found.clipped:.3%} |\n"
        f"| values that become 0 | {found.zeroed:.2%} |\n"
    )
    return figure, numbers


def copies(settings: whatif.Settings) -> tuple[str, str, str, str]:
    """Return the state as link, command, Python and JSON."""
    return (
        links.as_link("inspect", settings), links.as_command("whatif", settings, "model"),
        links.as_python("lab.jobs.models.whatif", settings), links.as_json(settings),
    )  # fmt: skip


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def build(models: list[str]) -> dict[str, Any]:
    """Lay the page out; returns its components by the name of their setting."""
    gr.Markdown(
        "Which values go into each layer, at which timestep, and what would rounding do to them? "
        "Pick a layer; drag the bits.", elem_classes="lead",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=2, min_width=340):
            model = gr.Dropdown(models, value=models[0], label="Model", info="Shipped denoisers")
            table = gr.Dataframe(
                headers=HEADERS, interactive=False, label="Layers, largest input first: click a row",
                max_height=560, show_search="filter", elem_id="layers",
            )  # fmt: skip
        with gr.Column(scale=3, min_width=360):
            layer = gr.Textbox(label="Layer", interactive=True, max_lines=1, elem_id="layer")
            heat_plot = gr.Plot(label="Channel x timestep", show_label=False)
            with gr.Row():
                form = gr.Radio(
                    ["int", "int-asymmetric", "float", "log"], value="int", label="Format", scale=3
                )
                shared = gr.Radio(["tensor", "channel"], value="tensor", label="A scale per", scale=2)
            with gr.Row():
                bits = gr.Slider(3, 8, value=8, step=1, label="Bits (simulated)", elem_id="bits")
                clip = gr.Slider(
                    0.05, 1, value=1, step=0.01, label="Clip", info="share of the range that the grid covers"
                )
            histogram = gr.Plot(label="Histogram and grid", show_label=False)
            numbers = gr.Markdown(elem_classes="numbers", elem_id="numbers")
            with gr.Accordion("Ranges over timesteps", open=False):
                ranges = gr.Plot(show_label=False)
            with gr.Accordion("Copy this state", open=False):
                link = gr.Textbox(label="Link", interactive=False, buttons=["copy"], elem_id="link")
                command = gr.Code(label="Command line", language="shell", interactive=False)
                python = gr.Code(label="Python", language="python", interactive=False)
                config = gr.Code(label="JSON", language="json", interactive=False)

    controls = [model, layer, form, bits, shared, clip]
    outputs = [histogram, numbers, link, command, python, config]

    @answer(outputs)
    def what_if(model: str, layer: str, format: str, bits: float, shared: str, clip: float) -> Any:
        """Round a layer's input on paper: errors from cached statistics (*simulated*)."""
        settings = settings_of(model, layer, format, bits, shared, clip)
        return (*rounding(settings), *copies(settings))

    @answer([heat_plot, ranges])
    def layer_views(model: str, layer: str) -> Any:
        """Channel x timestep map and ranges over time of a layer's input."""
        return heat(model, layer), bands(model, layer)

    @answer([table, layer])
    def layers_of(model: str, layer: str) -> Any:
        """List a model's layers, largest input first."""
        rows = layer_rows(model)
        known = layer if any(row[0] == layer for row in rows) else rows[0][0]
        return rows, known

    def clicked(event: gr.SelectData) -> str:
        return str(event.row_value[0])

    quick = {"show_progress": "hidden", "concurrency_limit": None}
    table.select(clicked, None, layer, api_visibility="private", **quick)
    model.change(layers_of, [model, layer], [table, layer], api_name="layers", concurrency_id="device")
    layer.change(layer_views, [model, layer], [heat_plot, ranges], api_name="layer_views", **quick)
    layer.change(what_if, controls, outputs, api_visibility="private", **quick)
    for control in (form, bits, shared, clip):
        control.change(
            what_if, controls, outputs, trigger_mode="always_last", api_visibility="private", **quick
        )
    gr.Button("Measure", visible=False).click(what_if, controls, outputs, api_name="what_if", **quick)
    names = ("model", "layer", "format", "bits", "shared", "clip")
    return {
        "fields": dict(zip(names, controls, strict=True)),
        "first": (layers_of, [model, layer], [table, layer]),
    }
