"""Which layers hurt: the worst ones, error against bits, error along the steps of the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.errors import InputError
from lab.figures.distributions import shorten
from lab.figures.plate import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILION,
    Plate,
    Provenance,
    Theme,
    axes,
    canvas,
    ink,
    legend,
    shade,
)  # fmt: skip

MEANING = {
    "sqnr_db": "signal over quantization noise of the prediction, dB",
    "nmse": "noise power over signal power of the prediction",
    "ssim": "similarity of the sample to full precision's (SSIM, one window)",
    "final_sqnr_db": "signal over quantization noise of the final latent, dB",
    "final_nmse": "noise power over signal power of the final latent",
}
SHORT = {
    "sqnr_db": "prediction SQNR, dB", "nmse": "prediction noise / signal",
    "ssim": "SSIM to full precision", "final_sqnr_db": "final-latent SQNR, dB",
    "final_nmse": "final-latent noise / signal",
}  # fmt: skip


def worst_layers(
    rows: Sequence[Mapping[str, Any]], metric: str, mode: str, provenance: Provenance, most: int = 20,
    theme: Theme = "light",
) -> Plate:  # fmt: skip
    """Draw the layers with the worst metric, one marker for each setting.

    Parameters
    ----------
    rows : sequence of mapping
        ``layer``, ``setting`` and the metric, worst first.
    metric : str
    mode : {"one-on", "one-off"}
    most : int
        Layers drawn.
    """
    _some(rows)
    names = list(dict.fromkeys(row["layer"] for row in rows))[:most]
    settings = sorted({row["setting"] for row in rows}, key=_number)
    figure = canvas(7.4, 0.22 * len(names) + 1.0, theme)
    ax = axes(figure, theme=theme, grid="x")
    places = {name: len(names) - 1 - i for i, name in enumerate(names)}
    for colour, marker, setting in zip(_colours(theme), "osD^v<>", settings, strict=False):
        mine = [row for row in rows if row["setting"] == setting and row["layer"] in places]
        ax.plot(
            [row[metric] for row in mine], [places[row["layer"]] for row in mine], marker, color=colour,
            label=_named(setting), markersize=5,
        )  # fmt: skip
    ax.set_yticks(list(places.values()), [shorten(name, 52) for name in places], fontsize=7.5)
    ax.set(xlabel=MEANING.get(metric, metric), ylim=(-0.7, len(names) - 0.3))
    if metric.endswith("mse"):
        ax.set_xscale("log")
    if len(settings) > 1:
        legend(ax, theme)
    for _ in range(2):  # long tick labels need more passes than a plate makes
        figure.draw_without_rendering()
    what = "quantized alone" if mode == "one-on" else "left in full precision alone"
    worst, named = rows[0], SHORT.get(metric, metric)
    said = f"{worst['layer']} comes first with {worst[metric]:.3g}"
    caption = f"The {len(names)} first layers by {named}, each {what}; {said}. {provenance.sentence()}"
    return Plate(figure, caption, f"Dot chart of {named} for {len(names)} layers: {said}.")


def error_by_bits(
    rows: Sequence[Mapping[str, Any]], metric: str, provenance: Provenance, theme: Theme = "light"
) -> Plate:
    """Draw every layer's metric over weight bits, the median on top.

    Parameters
    ----------
    rows : sequence of mapping
        ``layer``, ``setting`` (a number of bits as text) and the metric.
    """
    _some(rows)
    bits = sorted({int(row["setting"]) for row in rows})
    layers: dict[str, dict[int, float]] = {}
    for row in rows:
        layers.setdefault(row["layer"], {})[int(row["setting"])] = row[metric]
    values = np.array([[found.get(b, np.nan) for b in bits] for found in layers.values()])
    middle = np.nanmedian(values, axis=0)
    figure = canvas(5.6, 3.2, theme)
    ax = axes(figure, theme=theme, grid="y")
    ax.plot(bits, values.T, color=ink(theme)[1], linewidth=0.7, alpha=0.45)
    ax.plot(bits, middle, "o-", color=shade(BLUE, theme), linewidth=2.2, label="median layer")
    ax.set(xlabel="weight bits", ylabel=SHORT.get(metric, metric), xticks=bits)
    if metric.endswith("mse"):
        ax.set_yscale("log")
    legend(ax, theme)
    meaning = MEANING.get(metric, metric)
    said = ", ".join(f"{b} bits {m:.3g}" for b, m in zip(bits, middle, strict=True))
    caption = (
        f"{meaning[0].upper()}{meaning[1:]} against weight bits, one line for each of {len(layers)} layers; "
        f"median: {said}. {provenance.sentence()}"
    )
    return Plate(
        figure, caption, f"Line chart of {SHORT.get(metric, metric)} over bits; median layer: {said}."
    )


def error_along_steps(
    rows: Sequence[Mapping[str, float]], provenance: Provenance, theme: Theme = "light"
) -> Plate:
    """Draw the error of a model, all of it quantized by the base recipe, over the sampler's steps.

    Made in each step, and carried along; bits that were tried for single layers have no part in it.

    Parameters
    ----------
    rows : sequence of mapping
        ``step``, ``timestep``, ``accumulated_nmse``, and ``local_nmse`` except in the last.
    """
    _some(rows)
    figure = canvas(6.4, 2.9, theme)
    ax = axes(figure, theme=theme, grid="y")
    steps = [row["step"] for row in rows]
    local = [row.get("local_nmse", np.nan) for row in rows]
    carried = [row["accumulated_nmse"] or np.nan for row in rows]  # nothing yet: a gap on a logarithmic axis
    ax.plot(steps, local, "o--", color=VERMILION, markersize=4, label="prediction at the exact state")
    ax.plot(steps, carried, "s-", color=shade(BLUE, theme), markersize=4, label="state, error carried along")
    ax.set(xlabel="step of the sampler", ylabel="noise / signal power", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend(ax, theme)
    end = f"the final sample has {rows[-1]['accumulated_nmse']:.3g}"
    caption = f"Error by step of the whole model quantized by the base recipe; {end}. {provenance.sentence()}"
    return Plate(figure, caption, f"Line chart of error over {len(rows)} steps: {end}.")


def _some(rows: Sequence[Any]) -> None:
    if not rows:
        raise InputError("no rows to draw: measure at least one layer")


def _colours(theme: Theme) -> list[str]:
    return [shade(BLUE, theme), ORANGE, GREEN, VERMILION] * 2


def _number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (0, text)


def _named(setting: str) -> str:
    return f"{setting}-bit weights" if setting.isdigit() else setting
