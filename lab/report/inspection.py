"""Figures of an observation and the page that holds them: which layers are drawn, and with which titles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.figures import activations, attention, distributions, layers, ranges
from lab.figures.plate import Plate, Provenance, Theme

if TYPE_CHECKING:
    from quant.observation import Observation, TensorStats

Draw = Callable[[Theme], Plate]
GRIDS: dict[str, dict[str, Any]] = {
    "int8": {"kind": "int", "bits": 8},
    "int4": {"kind": "int", "bits": 4},
    "fp4 (e2m1)": {"kind": "float", "exponent": 2, "mantissa": 1},
    "log4": {"kind": "log", "bits": 4},
}


def overview(seen: Observation, source: Provenance, sort: str) -> dict[str, Draw]:
    """Figures over all layers: the statistic, drift, attention, skip concatenations."""
    from quant.observation import STATISTICS

    rows = seen.layer_table(sort)
    shown: dict[str, Draw] = {}
    if any(row[sort] is not None for row in rows):
        weights = sort.startswith("weight_")  # those differ between layers that read the same tensor
        once = rows if weights else seen.distinct(rows)
        shown[f"layers-{sort}"] = lambda theme: layers.statistic_bars(
            once, sort, STATISTICS[sort], source, theme=theme
        )
    moving = [row["layer"] for row in seen.distinct(seen.layer_table("drift"))][:6]
    times = list(seen.inputs[moving[0]].timesteps)
    if len(times) > 1:
        bands = {
            name: _bands(seen, name) for name in moving if len(seen.inputs[name].timesteps) == len(times)
        }
        shown["drift"] = lambda theme: distributions.drift_bands(times, bands, source, theme=theme)
    cross = {name: s.mass for name, s in seen.attention.items() if s.kind == "cross"}
    if cross and len({mass.shape[1] for mass in cross.values()}) == 1:
        shown["attention-sink"] = lambda theme: attention.sink_mass(cross, source, theme)
    for kind in ("cross", "self"):
        found = [s for s in seen.attention.values() if s.kind == kind]
        if found:
            widest = max(found, key=lambda s: s.row()["bimodality"])
            shown[f"attention-{kind}"] = _scores(widest, source)
    halves = {s.layer: s.halves() for s in seen.inputs.values() if s.split is not None}
    if halves:
        shown["skip-ranges"] = lambda theme: ranges.skip_ranges(halves, source, theme)  # type: ignore[arg-type]
    return shown


def of_layer(seen: Observation, name: str, source: Provenance) -> dict[str, Draw]:
    """Figures of one layer: channels by timestep, axes, histograms of input and weight with levels."""
    from quant.observation import grid_levels
    from quant.observation.bins import edges

    stats, source = seen.inputs[name], replace(source, source=f"{source.source}, {name}")
    # few channels need no marks, and hundreds of marks say nothing
    marked = stats.salient()
    shown: dict[str, Draw] = {
        "heat": lambda theme: activations.channel_timestep_map(
            stats.absmax, list(stats.timesteps), source, tensor=stats.tensor,
            marked=marked.tolist() if len(marked) <= 32 else [], theme=theme,
        ),
    }  # fmt: skip
    if stats.position_low.shape[1] > 1:
        pairs = [(stats.channel["min"].min(0), stats.channel["max"].max(0))]
        pairs.append((stats.position_low.min(0), stats.position_high.max(0)))
        spread = tuple(stats.spreads().mean(0).tolist())
        shown["axes"] = lambda theme: ranges.axis_ranges(
            pairs[0], pairs[1], spread, source, stats.tensor, _position(stats), theme  # type: ignore[arg-type]
        )  # fmt: skip
    borders = edges().numpy()
    tensors = {"input": (stats.histogram.sum(0), stats.channel["min"].min(), stats.channel["max"].max())}
    if name in seen.weights:
        weight = seen.weights[name]
        tensors["weight"] = (weight.histogram, weight.output["min"].min(), weight.output["max"].max())
    for tensor, (counts, low, high) in tensors.items():
        levels = {label: grid_levels(_grid(d), float(low), float(high)) for label, d in GRIDS.items()}
        shown[f"{tensor}-levels"] = _levels(counts, borders, levels, source, tensor)
    return shown


def surfaces(seen: Observation, name: str, source: Provenance) -> dict[str, Draw]:
    """Before and after every transform that was looked through, on one z-axis.

    Those that keep the scale are drawn as they are, those that smooth in units of each tensor's rms.
    """
    mine = {s.tensor: s for s in seen.inputs.values() if s.layer == name and s.surface.size}
    where, axis = replace(source, source=f"{source.source}, {name}"), _position(seen.inputs[name])
    rms = {row["tensor"]: row["rms"] for row in seen.layer_table() if row["layer"] == name}
    shown: dict[str, Draw] = {}
    for file, smoothed in (("surface", False), ("surface-relative", True)):
        found = {t: s.surface for t, s in mine.items() if t == "input" or ("smoothing" in t) == smoothed}
        if len(found) > 1:
            shown[file] = _surface(found, where, axis, rms if smoothed else None)
    return shown


def _surface(
    found: dict[str, np.ndarray], where: Provenance, axis: str, units: dict[str, float] | None
) -> Draw:
    return lambda theme: activations.activation_surfaces(found, where, axis, units, theme)


def _scores(stats: Any, source: Provenance) -> Draw:
    from quant.observation import bins

    positive, cut = bins.magnitudes().numpy(), slice(bins.HALF + 1, None)
    leading, rest = stats.leading.sum(0), stats.rest.sum(0)
    if stats.kind == "self":  # no key of an image leads
        leading, rest = np.zeros_like(leading), leading + rest
    # less than the histogram's smallest magnitude: in the bin around 0
    below = int(leading[: bins.HALF + 1].sum()), int(rest[: bins.HALF + 1].sum())
    leading, rest = leading[cut], rest[cut]
    inside = positive[1:] <= 1.0
    # a probability of exactly 1 falls into the bin that begins there
    last = np.flatnonzero(inside)[-1] + 1
    for counts in (leading, rest):
        counts[last - 1] += counts[last:].sum()
    return lambda theme: attention.score_histogram(
        positive[: last + 1], leading[:last], rest[:last], source, f"{stats.module} ({stats.kind}-attention)",
        theme=theme, below=below,
    )  # fmt: skip


def _levels(
    counts: np.ndarray, borders: np.ndarray, levels: dict[str, np.ndarray], source: Provenance, tensor: str
) -> Draw:
    return lambda theme: distributions.level_histogram(counts, borders, levels, source, tensor, theme)


def _bands(seen: Observation, name: str) -> Mapping[str, np.ndarray]:
    rows = [row for row in seen.steps_of(name)]
    return {key: np.array([row[key] for row in rows]) for key in ("min", "max", "p1", "p99", "p50")}


def _position(stats: TensorStats) -> str:
    return "pixel" if stats.kind == "Conv2d" else "token"


def _grid(described: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter

    from quant.formats.quantizer import AnyGrid

    return TypeAdapter(AnyGrid).validate_python(described)


def close_ups(seen: Observation, sort: str, most: int) -> dict[str, str]:
    """Name layers to look at closely, with the reason.

    The first ones by a statistic that read different tensors, the one with most salient channels, and the one
    whose positions spread most beyond its channels.
    """
    rows = seen.distinct(seen.layer_table(sort))
    found = {row["layer"]: f"Number {i + 1} by {sort}." for i, row in enumerate(rows[:most])}
    salient = max(rows, key=lambda row: row["salient_channels"])
    if salient["salient_channels"]:
        found.setdefault(salient["layer"], f"Most salient channels: {salient['salient_channels']}.")
    wide = [row for row in rows if (row["spread_position"] or 0) > row["spread_channel"] > 0]
    if wide:
        row = max(wide, key=lambda row: row["spread_position"] / row["spread_channel"])
        found.setdefault(row["layer"], "Outliers by position: its spread over positions is the larger one.")
    return found


def page(
    seen: Observation, shown: Mapping[str, Mapping[str, Draw]], why: Mapping[str, str], sort: str,
    source: Provenance,
) -> Any:  # fmt: skip
    """Render one self-contained page: what was looked at, the table, all layers' figures, single layers."""
    from lab.report.block import figure, table
    from lab.report.page import render_block, render_page
    from quant.observation import STATISTICS

    rows = seen.layer_table(sort)
    first = next((row for row in rows if row[sort] is not None), None)
    lines = [
        f"{len(seen.distinct(rows))} tensors, which {len(rows)} layers of {seen.settings['name']} read, "
        f"{source.samples}; each is the input of a layer, the tensor that is quantized."
    ]
    if first is not None:
        lines.append(f"Largest {sort}: {first[sort]:.4g} in {first['layer']}.")
    sections = []
    for number, (name, figures) in enumerate(shown.items()):
        blocks = [render_block(figure(draw)) for draw in figures.values()]
        title, intro = (name, why[name]) if name else ("All layers", "")
        sections.append({"id": f"part{number}", "title": title, "intro": intro, "blocks": blocks})
    # a stopped look is read back in another order
    settings = sorted((k, v) for k, v in seen.settings.items() if not isinstance(v, dict | list))
    extra = [("timesteps", ", ".join(f"{t:g}" for t in seen.settings["timesteps"]))]
    extra += [("never ran", ", ".join(seen.settings["never_ran"]) or "none")]
    about = [
        render_block(table([*settings, *extra])),
        render_block(table(sorted(seen.settings["versions"].items()))),
    ]
    sections.insert(1, {
        "id": "table", "title": "Layer table", "blocks": [render_block(layer_block(rows, sort))],
        "intro": f"Sorted by {sort}: {STATISTICS[sort]}. A click on a heading sorts by it.",
    })  # fmt: skip
    sections.append({"id": "about", "title": "What was looked at", "intro": "", "blocks": about})
    return render_page(
        title=f"{seen.settings['name']}: inspection", eyebrow="Inspection", heading=seen.settings["name"],
        summary=lines, banner="", sections=sections, problems=[],
    )  # fmt: skip


COLUMNS = (
    "absmax", "rms", "kurtosis", "outlier_share", "outlier_channels", "salient_channels", "channel_ratio",
    "position_ratio", "axis", "drift", "skip_ratio", "weight_absmax", "weight_kurtosis",
    "weight_channel_ratio",
)  # fmt: skip


def layer_block(rows: list[dict[str, Any]], sort: str) -> Any:
    """Return the table of layers, the sorting statistic first."""
    from lab.report.block import Block
    from quant.observation import STATISTICS

    names = [sort, *(name for name in COLUMNS if name != sort)]
    heads = [
        {
            "name": n.replace("absmax", "max |x|").replace("_", " "),
            "meaning": STATISTICS.get(n, "axis with DGQ's larger spread"),
        }
        for n in names
    ]
    lines = [
        {"layer": row["layer"], "kind": row["kind"], "channels": row["channels"],
         "cells": [{"text": _word(row[n]), "value": _order(row[n])} for n in names]}
        for row in rows
    ]  # fmt: skip
    return Block("inspection_table", {"heads": heads, "rows": lines})


def _word(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _order(value: Any) -> str:
    return repr(float(value)) if isinstance(value, int | float) else ""
