"""The fold of Inspect that shows all layers at once, flags those that stand out, and hands them to Plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np

from lab.app.work import answer

LARGEST, RATIO, TAILS, DRIFT = "largest magnitude", "largest over median channel", "kurtosis", "drift"
STATISTICS = {LARGEST: "absmax", RATIO: "channel_ratio", TAILS: "kurtosis", DRIFT: "drift"}
SAY = {
    LARGEST: "largest |x| of the layer's input",
    RATIO: "largest |x| of its largest channel over that of its median channel",
    TAILS: "kurtosis of the layer's input (3: a bell curve)",
    DRIFT: "largest |x| at its largest timestep over that at its smallest",
}
_NAMED = 12  # layers written out; all of them are handed on


def flagged(seen: Any, statistic: str, times: float) -> tuple[Any, str, list[str]]:
    """Return the figure of all layers, the words below it, and the names of those that stand out.

    Parameters
    ----------
    seen : Observation
    statistic : str
        One of `STATISTICS`.
    times : float
        Threshold, in medians over layers.
    """
    from lab.figures.interactive.overview import layer_overview, standing_out

    rows = [row for row in seen.layer_table() if row["tensor"] == "input"]
    names = [row["layer"] for row in rows]
    values = [float(row[STATISTICS[statistic]] or 0) for row in rows]
    channels = [seen.inputs[name].absmax.max(0) for name in names]
    beside = {
        "median channel": [float(np.median(each)) for each in channels],
        "99 % of channels below": [float(np.quantile(each, 0.99)) for each in channels],
    }
    out, threshold = standing_out(values, times)
    chosen = [names[k] for k in out]
    title = (
        f"{statistic.capitalize()}: {len(chosen)} of {len(names)} layers at or above {threshold:.3g}, "
        f"which is {times:g} times the median layer (dashed)"
    )
    figure = layer_overview(names, values, times, statistic, title, beside if statistic == LARGEST else None)
    most = sorted(out, key=lambda k: -values[k])[:_NAMED]
    words = "\n".join(f"- `{names[k]}`: {values[k]:.4g}" for k in most)
    more = f"\n- and {len(chosen) - _NAMED} more" if len(chosen) > _NAMED else ""
    from_what = f"{seen.settings['samples']} samples at {len(seen.settings['timesteps'])} timesteps"
    said = f"{SAY[statistic][:1].upper()}{SAY[statistic][1:]}; {from_what}."
    return figure, f"{said}\n\n{words or 'No layer stands out.'}{more}", chosen


def left_alone(chosen: list[str], box: str) -> tuple[str, str]:
    """Return Plan's box of layers to leave alone with the flagged ones in it, and what was done."""
    lines = [line for line in (box or "").splitlines() if line.strip()]
    new = [name for name in chosen if name not in lines]
    words = f"{len(new)} layers more are left alone in Plan and apply." if new else "Nothing to add."
    return "\n".join([*lines, *new]), words


def build(model: Any, recording: Any, look: Callable[[str, str], Any]) -> dict[str, Any]:
    """Lay the fold out.

    Parameters
    ----------
    model, recording : gradio component
        Which say what is looked at.
    look : callable
        Returns what was seen of a model with a recording.

    Returns
    -------
    dict
        ``button``, ``chosen`` and ``status``, for `hand_on`.
    """
    with gr.Accordion("All layers at once: which stand out?", open=False, elem_id="overview") as fold:
        with gr.Row():
            statistic = gr.Dropdown(list(STATISTICS), value=LARGEST, label="Statistic", scale=1)
            times = gr.Slider(1, 20, value=3, step=0.5, scale=2, elem_id="overview-times",
                              label="Flag layers from so many times the median layer")  # fmt: skip
        plot = gr.Plot(label="All layers", show_label=False)
        words = gr.Markdown(elem_classes="source", elem_id="overview-words")
        button = gr.Button("Leave these alone in Plan and apply", elem_id="overview-plan")
        status = gr.Markdown(elem_id="overview-status")
    chosen = gr.State([])

    @answer
    def all_layers(model: str, recording: str, statistic: str, times: float) -> Any:
        """Show a statistic of all layers, and those of so many times the median layer's or more."""
        return flagged(look(model, recording), statistic, times)

    quick: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
    given, shown = [model, recording, statistic, times], [plot, words, chosen]
    statistic.input(all_layers, given, shown, api_name="all_layers", **quick)
    gr.on([fold.expand, times.input, times.release], all_layers, given, shown, api_visibility="private",
          trigger_mode="always_last", **quick)  # fmt: skip
    return {"button": button, "chosen": chosen, "status": status}


def hand_on(flags: dict[str, Any], box: Any) -> None:
    """Let the fold's button write into Plan's box of layers to leave alone."""
    flags["button"].click(left_alone, [flags["chosen"], box], [box, flags["status"]],
                          api_visibility="private", show_progress="hidden")  # fmt: skip
