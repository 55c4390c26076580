"""Inspect: what a layer's input looks like, and what a grid would do to it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lab.app import overview
from lab.app.copying import copies, copy_box, in_address, page_box
from lab.app.places import local
from lab.app.work import BRIEF, answer, canceller, failed, refusal, stream
from lab.jobs.contract import Context
from lab.jobs.models import look, whatif

COLUMNS = ("layer", "absmax", "kurtosis", "outlier_share", "drift")
HEADERS = ["layer", "max |x|", "kurtosis", "outliers", "drift"]
COLUMNS_SAY = (
    "**max |x|**: largest magnitude of the layer's input. **kurtosis**: 3 for a bell curve, more where a few "
    "values lie far out. **outliers**: share of values of {factor:g} times the median channel's rms or more. "
    "**drift**: max |x| of its largest over that of its smallest timestep."
)
PAGE = "Write this model's page: all layers, figures, attention (a minute or two; under Runs)"
_IN_RANGE = (
    "(...all) => {{ all[{bits}] = Math.min(8, Math.max(3, all[{bits}]));"
    " all[{clip}] = Math.min(1, Math.max(0.05, all[{clip}])); return all; }}"
)
_WIDTHS: Any = ["41%", "13%", "16%", "16%", "14%"]


def asked(model: str, recording: str = "") -> look.Settings:
    """Return the look at a model: a shipped one, or a local folder with a recording of it."""
    for name in (model, recording):
        local(name)
    return look.Settings(model=model, recording=Path(recording) if recording else None)


def seen_by(model: str, recording: str = "") -> Any:
    """Statistics of a model; looked at once per process."""
    return look.run(asked(model, recording), Context())


def layer_rows(model: str, recording: str = "", sort: str = "absmax") -> list[list[Any]]:
    """Rows of the layer table, largest first."""
    table = [row for row in seen_by(model, recording).layer_table(sort) if row["tensor"] == "input"]
    return [[_shown(c, row[c]) for c in COLUMNS] for row in table]


def heat(model: str, layer: str, recording: str = "") -> Any:
    """Channel x timestep map of a layer's input."""
    from lab.figures.interactive.views import channel_timestep_heat

    seen = seen_by(model, recording)
    stats = seen.inputs[whatif.layer_of(seen, layer)]
    marked = stats.outlier_channels()
    note = f" ({len(marked)} outlier channels marked)" if len(marked) else ""
    what = f"Input of {stats.layer}: largest magnitude per channel and timestep{note}"
    return channel_timestep_heat(stats.absmax, list(stats.timesteps), what, marked)


def bands(model: str, layer: str, recording: str = "") -> Any:
    """Ranges of a layer's input over timesteps."""
    from lab.figures.interactive.views import range_bands

    seen = seen_by(model, recording)
    name = whatif.layer_of(seen, layer)
    rows = seen.steps_of(name)
    columns = {k: np.array([row[k] for row in rows]) for k in ("min", "p1", "p50", "p99", "max")}
    return range_bands(list(seen.inputs[name].timesteps), columns, f"Input of {name}: range at each timestep")


def caption_of(model: str, layer: str, recording: str = "") -> Any:
    """Return where a layer's figures come from."""
    settings, seen = asked(model, recording), seen_by(model, recording)
    return look.source(settings, seen, whatif.layer_of(seen, layer))


def named(model: str, layer: str, recording: str = "") -> Iterator[list[Any]]:
    """Give the layer that was written and no words; or leave the box as it is, and say what is wrong."""
    try:
        found = [whatif.layer_of(seen_by(model, recording), layer), ""]  # nothing: the largest
    except Exception as fault:
        yield [gr.skip(), failed(fault)]
        raise refusal(fault, BRIEF) from None  # nothing is drawn after it
    yield found


def rounding(settings: whatif.Settings) -> tuple[Any, str]:
    """Histogram with the grid over it, and the numbers below it."""
    from lab.figures.interactive.views import level_bars
    from quant.observation import bins

    seen = seen_by(settings.model, str(settings.recording or ""))
    layer, found = whatif.measure(seen, settings)
    stats = seen.inputs[layer]
    grid = whatif.grid_of(settings.format, settings.bits).label
    figure = level_bars(
        stats.histogram.sum(0), bins.edges().numpy(), found.levels, found.low, found.high,
        f"Input of {layer} and the levels of {grid}; dashed: "
        + ("its range" if settings.shared == "tensor" else "its widest channel's range"),
    )  # fmt: skip
    whose = "one scale per tensor" if settings.shared == "tensor" else "one scale per channel (widest drawn)"
    numbers = (
        "| *simulated* | signal to noise | mean squared error | clipped | become 0 |\n|---|---|---|---|---|\n"
        f"| {grid}, {whose} | **{found.sqnr_db:.2f} dB** | {found.mse:.4g} | {found.clipped:.3%} "
        f"| {found.zeroed:.2%} |\n"
    )
    return figure, numbers


def measured(
    model: str, layer: str, format: Any, bits: Any, shared: Any, clip: float, recording: str = ""
) -> whatif.Settings:  # fmt: skip
    """Return what the controls say, checked."""
    return whatif.Settings(
        model=model, layer=layer, format=format, bits=bits, shared=shared, clip=clip,
        recording=Path(recording) if recording else None,
    )  # fmt: skip


def page_of(model: str, recording: str) -> tuple[dict[str, Any], str]:
    """Return the settings of the page about a model, and how its run is called."""
    settings = asked(model, recording)
    return {"model": model, "recording": settings.recording}, f"inspect-{Path(model).name}"


def _shown(column: str, value: Any) -> Any:
    if column == "outlier_share":
        return f"{value:.2%}"
    return float(f"{value:.3g}") if isinstance(value, float) else value


def build(model: Any, recording: Any, home: Path) -> dict[str, Any]:
    """Lay the page out; returns its components by the name of their setting.

    Parameters
    ----------
    model, recording : gradio component
        Which say what is looked at.
    home : Path
        Folder of the runs.
    """
    gr.Markdown(
        "Which values go into each layer, at which timestep, and what would rounding do to them? "
        "Pick a layer; drag the bits.", elem_classes="lead",
    )  # fmt: skip
    from quant.observation.stats import OUTLIER_FACTOR

    with gr.Row():
        with gr.Column(scale=5, min_width=340):
            table = gr.Dataframe(
                headers=HEADERS, interactive=False,
                label="Layers, largest input first: click a row, or arrow keys and Enter",
                max_height=330, show_search="filter", elem_id="layers", elem_classes="short",
                column_widths=_WIDTHS,
            )  # fmt: skip
            heat_plot = gr.Plot(label="Channel x timestep", show_label=False)
            layer = gr.Textbox(label="Layer: choose a row, or write its name, then Enter", interactive=True,
                               max_lines=1, elem_id="layer")  # fmt: skip
            wrong = gr.Markdown(elem_id="layer-wrong")
            note = gr.Markdown(elem_classes="source")
            gr.Markdown(COLUMNS_SAY.format(factor=OUTLIER_FACTOR), elem_classes="source")
        with gr.Column(scale=6, min_width=340):
            with gr.Row():
                form = gr.Radio(
                    ["int", "int-asymmetric", "float", "log"], value="int", label="Format", scale=2
                )
                shared = gr.Radio(["tensor", "channel"], value="tensor", label="One scale per", scale=1)
            with gr.Row():
                bits = gr.Slider(3, 8, value=8, step=1, label="Bits (simulated)", elem_id="bits")
                clip = gr.Slider(0.05, 1, value=1, step=0.01, label="Clip: share of range kept")
            histogram = gr.Plot(label="Histogram and grid", show_label=False)
            numbers = gr.Markdown(elem_classes="numbers", elem_id="numbers")
            ranges = gr.Plot(label="Ranges over timesteps", show_label=False)
    flags = overview.build(model, recording, seen_by)
    with gr.Accordion("Before and after smoothing and rotation", open=False, elem_id="before-after"):
        with gr.Row():
            draw = gr.Button("Draw on one axis", elem_id="surfaces")
            stop = gr.Button("Cancel", variant="stop")
        status = gr.Markdown()
        with gr.Row():
            drawn = [
                gr.Image(show_label=False, interactive=False, visible=False, scale=panels, min_width=320,
                         format="png", buttons=["download", "fullscreen"])
                for panels in (2, 3)
            ]  # fmt: skip
        drawn_note = gr.Markdown(elem_classes="source")
    boxes, fold = copy_box("inspect")
    page_box("inspect", home, PAGE, "inspect", page_of, [model, recording])
    hidden = gr.Gallery(visible=False)
    controls = [model, layer, form, bits, shared, clip, recording]
    outputs = [histogram, numbers]

    @answer
    def what_if(
        model: str, layer: str, format: str, bits: float, shared: str, clip: float, recording: str = ""
    ) -> Any:  # fmt: skip
        """Round a layer's input on paper: errors from cached statistics (*simulated*)."""
        return rounding(measured(model, layer, format, bits, shared, clip, recording))

    @answer
    def state(
        model: str, layer: str, format: str, bits: float, shared: str, clip: float, recording: str = ""
    ) -> Any:  # fmt: skip
        """Return what the controls say as a link, command line, Python and JSON."""
        settings = measured(model, layer, format, bits, shared, clip, recording)
        return copies("whatif", "inspect", settings)

    @answer
    def layer_views(model: str, layer: str, recording: str = "") -> Any:
        """Channel x timestep map and ranges over time of a layer's input."""
        of = (model, layer, recording)
        return heat(*of), bands(*of), caption_of(*of).sentence()

    @answer
    def layers_of(model: str, layer: str, recording: str = "") -> Any:
        """List a model's layers, largest input first."""
        rows = layer_rows(model, recording)
        known = layer if any(row[0] == layer for row in rows) else rows[0][0]
        return rows, known

    @answer
    def everything(
        model: str, layer: str, format: str, bits: float, shared: str, clip: float, recording: str = ""
    ) -> Any:  # fmt: skip
        """First picture: the table, the largest layer, its figures and numbers at once."""
        rows, known = layers_of(model, layer, recording)
        rounded = what_if(model, known, format, bits, shared, clip, recording)
        return rows, known, *layer_views(model, known, recording), *rounded

    def before_after(
        model: str, layer: str, recording: str, request: gr.Request
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Draw a layer's input before and after smoothing and rotation on one axis."""

        def prepare() -> Any:
            settings = asked(model, recording)
            name = whatif.layer_of(look.run(settings, Context()), layer)

            def show(found: list[Any]) -> list[Any]:
                return [*(gr.Image(picture, visible=True) for picture in found[:2]), found[2]]

            return partial(look.surfaces, settings, name), show

        yield from stream(prepare, 3, "before-after", request)

    @answer
    def of_layer(
        model: str, layer: str, format: str, bits: float, shared: str, clip: float, recording: str = ""
    ) -> Any:  # fmt: skip
        """Show a layer's figures and numbers."""
        rounded = what_if(model, layer, format, bits, shared, clip, recording)
        return layer, *layer_views(model, layer, recording), *rounded

    def dragged(*given: Any) -> Any:
        try:
            return what_if(*given)
        except gr.Error as fault:  # outside of the queue, Gradio shows no message
            return gr.skip(), str(fault.message)

    def clicked(
        model: str, layer: str, format: str, bits: float, shared: str, clip: float, recording: str,
        event: gr.SelectData,
    ) -> Any:  # fmt: skip
        return of_layer(model, str(event.row_value[0]), format, bits, shared, clip, recording)

    quick: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
    seen = [model, layer, recording]
    views = [heat_plot, ranges, note]
    # the public ones come first: a name that is taken gets a number
    gr.Button("Measure", visible=False).click(
        what_if, controls, outputs, api_name="what_if", queue=False, **quick
    )
    gr.Button("Layers", visible=False).click(layers_of, seen, [table, layer], api_name="layers")
    gr.Button("Views", visible=False).click(layer_views, seen, views, api_name="layer_views")
    one = [layer, *views, *outputs]
    table.select(clicked, controls, one, api_visibility="private", queue=False, **quick)
    found = layer.submit(named, seen, [layer, wrong], api_visibility="private", **quick)
    found.success(of_layer, controls, one, api_visibility="private", **quick)
    # another name is no longer the one that was refused
    layer.change(None, None, wrong, js="() => ''", api_visibility="private")
    whole = [table, *one]
    gr.on([model.input, recording.submit], everything, controls, whole, api_visibility="private",
          trigger_mode="always_last", show_progress_on=[table, heat_plot])  # fmt: skip
    # a number that was typed is moved into its range when it is left: what is shown is of that one at once
    for event in (form.input, bits.input, bits.release, shared.input, clip.input, clip.release):
        event(dragged, controls, outputs, trigger_mode="always_last", api_visibility="private", queue=False,
              js=_IN_RANGE.format(bits=controls.index(bits), clip=controls.index(clip)), **quick)  # fmt: skip
    # the copies follow once a slider rests: a drag sends no more than it shows
    rested = [fold.expand, form.input, shared.input, bits.release, clip.release, layer.change]
    said = gr.on(rested, state, controls, boxes, api_name="state", trigger_mode="always_last", queue=False,
                 **quick)  # fmt: skip
    in_address(said, boxes[0])
    draw.click(before_after, seen, [status, hidden, *drawn, drawn_note], api_name="before_after",
               concurrency_limit=None, show_progress="hidden")  # fmt: skip
    stop.click(canceller("before-after"), None, status, api_visibility="private", queue=False)
    names = ("layer", "format", "bits", "shared", "clip")
    return {
        "fields": dict(zip(names, controls[1:-1], strict=True)),
        "first": (everything, controls, whole),
        "flags": flags,
    }
