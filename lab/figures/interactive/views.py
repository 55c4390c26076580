"""Figures that answer a slider: plotly, from plain arrays. The app and the widgets draw the same ones.

They hold no more than a few hundred points each, so that a change costs milliseconds and kilobytes; the
reports have the same views as `Plate` with everything in them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#7f8790"
_LABEL = {"bgcolor": "#1f2937", "bordercolor": GREY, "font": {"color": "#f8fafc", "size": 12}}
CLEAR = "rgba(0,0,0,0)"
_MOST = 240  # columns of a heat map; more channels are joined, their largest value kept
_APART = 12  # pixels between the numbers of the vertical axis, powers too, and its title
_FEW = 3  # names that fit between a title and its figure on a phone
_LINE = 42  # letters of a title's line
_COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7")
_SIGN_COLOURS = (VERMILION, BLUE, GREY, "#009E73", "#CC79A7")
_DASHES, _SYMBOLS = ("solid", "dash", "dot", "dashdot"), ("circle", "square", "diamond", "x")
_TIMESTEPS = {"type": "category", "title": "timestep (noise at the left)"}
_COARSE = 4  # bins of the histogram joined into one bar


def channel_timestep_heat(
    values: np.ndarray, timesteps: Sequence[float], title: str, marked: Sequence[int] = ()
) -> go.Figure:
    """Draw the largest magnitude of each channel (columns) at each timestep (rows, noise at the top).

    Parameters
    ----------
    values : array of shape (timesteps, channels)
        Not negative.
    marked : sequence of int
        Channels to mark with a triangle, as outlier channels.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or len(values) != len(timesteps):
        raise InputError(f"values {values.shape} need one row for each of {len(timesteps)} timesteps")
    starts, joined = _join(values)
    shown = np.log10(np.maximum(joined, joined.max() * 1e-4 or 1e-12))
    ticks = np.linspace(shown.min(), shown.max(), 5)
    names = [f"{t:g}" for t in timesteps]
    traces: list[Any] = [
        {
            "type": "heatmap", "z": shown, "x": starts, "y": names, "customdata": joined,
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": "largest |x|"}, "tickvals": ticks,
                         "ticktext": [f"{10**t:.3g}" for t in ticks]},
            "hovertemplate": "channel %{x}, timestep %{y}<br>largest |x| %{customdata:.4g}<extra></extra>",
        }
    ]  # fmt: skip
    if len(marked):
        traces.append(scatter(
            x=list(marked), y=[names[0]] * len(marked), mode="markers", hoverinfo="skip", showlegend=False,
            marker={"symbol": "triangle-down", "size": 10, "color": VERMILION},
        ))  # fmt: skip
    return dressed(
        traces,
        title,
        {"title": "channel"},
        {"autorange": "reversed", "type": "category", "title": "timestep"},
        280,
    )


def level_bars(
    counts: np.ndarray, edges: np.ndarray, levels: np.ndarray, low: float, high: float, title: str
) -> go.Figure:
    """Draw how often values occur (density, log) with the levels of a grid and its clip range over them.

    Parameters
    ----------
    counts : array of shape (n_bins,)
    edges : array of shape (n_bins + 1,)
        Ascending.
    levels : array of shape (n,)
        Values that the grid can represent.
    low, high : float
        Clip range.
    """
    counts, edges = np.asarray(counts, float), np.asarray(edges, float)
    used = np.flatnonzero(counts)
    if not len(used):
        raise InputError("the histogram is empty; nothing to draw")
    cut = np.arange(used[0], used[-1] + 1, _COARSE)
    sums = np.add.reduceat(counts[: used[-1] + 1], cut)
    sides = np.append(edges[cut], edges[used[-1] + 1])
    density = sums / sums.sum() / np.diff(sides)
    floor = density[density > 0].min() / 2
    x = np.repeat(sides, 2)
    y = np.concatenate([[floor], np.repeat(np.maximum(density, floor), 2), [floor]])
    bars = scatter(x=x, y=y, mode="lines", line={"color": BLUE, "width": 1}, fill="tozeroy", name="values",
                      hovertemplate="%{x:.3g}: density %{y:.3g}<extra></extra>")  # fmt: skip
    top = density.max() * 2
    each = 1 if len(levels) <= 64 else len(levels) // 64 + 1
    ticks = levels[::each]
    which = f"{len(levels)} levels" if each == 1 else f"{len(levels)} levels (1 in {each})"

    def upright(places: np.ndarray, name: str, **line: Any) -> dict[str, Any]:
        x = np.stack([places, places, np.full(len(places), np.nan)], 1).ravel()
        return scatter(x=x, y=np.tile([floor, top, np.nan], len(places)), mode="lines", line=line, name=name,
                        hoverinfo="skip")  # fmt: skip

    grid = {**upright(ticks, which, color=VERMILION, width=1), "opacity": 0.7}
    cuts = upright(np.array([low, high]), "range kept", color=GREY, dash="dash", width=2)
    cuts["showlegend"] = False  # a third name has no room on a phone: the title says what is dashed
    room = 0.03 * (sides[-1] - sides[0])
    reach = [sides[0] - room, sides[-1] + room]
    return dressed(
        [bars, grid, cuts], title, {"range": reach, "title": "value of the layer's input"},
        {"type": "log", "range": [np.log10(floor), np.log10(top)], "title": "density, log",
         "exponentformat": "power", "dtick": 1}, 280,
    )  # fmt: skip


def range_bands(timesteps: Sequence[float], bands: dict[str, np.ndarray], title: str) -> go.Figure:
    """Draw a layer's extremes, central 98 % and median over timesteps.

    Parameters
    ----------
    bands : dict of str to array of shape (timesteps,)
        ``min``, ``p1``, ``p50``, ``p99``, ``max``.
    """
    x, traces = [f"{t:g}" for t in timesteps], []
    for low, high, name, alpha in (("min", "max", "all values", 0.18), ("p1", "p99", "central 98 %", 0.4)):
        traces.append(scatter(
            x=x, y=bands[low], mode="lines", line={"width": 0}, showlegend=False, hoverinfo="skip"
        ))  # fmt: skip
        traces.append(scatter(
            x=x, y=bands[high], mode="lines", line={"width": 0}, fill="tonexty", name=name,
            fillcolor=f"rgba(0,114,178,{alpha})",
        ))  # fmt: skip
    traces.append(scatter(x=x, y=bands["p50"], mode="lines", line={"color": GREY, "width": 2}, name="median"))
    return dressed(traces, title, _TIMESTEPS, {"title": "value of the layer's input"}, 280)


def error_lines(timesteps: Sequence[float], errors: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    """Draw noise over signal power at each timestep, a line with its own dash and marker for each recipe.

    Parameters
    ----------
    timesteps : sequence of float
        From noise to the picture.
    errors : dict of str to sequence of float
        By recipe; zero (nothing differs yet) is left out.
    """
    names = [f"{t:.0f}" for t in timesteps]
    shown = [value for values in errors.values() for value in values if value]
    wide = bool(shown) and max(shown) > 10 * min(shown)
    ticks = {"dtick": 1} if wide else {}  # plotly's 2 and 5 between the tens crowd the axis
    traces = [
        scatter(
            x=names, y=[value or None for value in values], name=name, mode="lines+markers",
            line={"color": _COLOURS[number % 4], "dash": _DASHES[number % 4]},
            marker={"symbol": _SYMBOLS[number % 4], "size": 7},
        )
        for number, (name, values) in enumerate(errors.items())
    ]  # fmt: skip
    return dressed(
        traces, title, _TIMESTEPS,
        {"type": "log", "title": "noise / signal power", "exponentformat": "power", **ticks},
    )  # fmt: skip


def sorted_dots(rows: Sequence[tuple[str, float]], meaning: str, title: str) -> go.Figure:
    """Draw a curve over layers, worst first, each named where the pointer is.

    Parameters
    ----------
    rows : sequence of (str, float)
        Layer and value, in order.
    meaning : str
        Of the values, for the axis.
    """
    dots = scatter(
        x=list(range(1, len(rows) + 1)), y=[value for _, value in rows], mode="lines+markers",
        text=[name for name, _ in rows], line={"color": BLUE, "width": 1}, marker={"size": 6},
        hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
    )  # fmt: skip
    few = {"dtick": 1} if len(rows) <= 12 else {}  # no half layers
    return dressed([dots], title, {"title": "layers, worst first", **few}, {"title": meaning})


def roofline(points: Sequence[tuple[str, float, float, str]], title: str) -> go.Figure:
    """Draw measured time against the least time that memory and arithmetic allow (log axes).

    Parameters
    ----------
    points : sequence of (str, float, float, str)
        Name, least time, measured time, in microseconds, and kind: each kind has its sign, the first is that
        of the baseline.
    """
    low = min(least for _, least, *_ in points) * 0.7
    high = max(time for _, _, time, _ in points) * 1.4
    traces = [
        scatter(x=[low, high], y=[low, high], mode="lines", name="limit",
                   line={"color": GREY, "dash": "dash"}, hoverinfo="skip")
    ]  # fmt: skip
    signs = ("diamond", "square", "circle-open", "x", "triangle-up")
    for number, kind in enumerate(dict.fromkeys(kind for *_, kind in points)):
        mine = [(escape(name), least, time) for name, least, time, which in points if which == kind]
        names, leasts, times = zip(*mine, strict=True)
        traces.append(scatter(
            x=leasts, y=times, text=names, mode="markers", name=kind,
            marker={"size": 9 if number else 12, "color": _SIGN_COLOURS[number % 5],
                    "symbol": signs[number % 5]},
            hovertemplate="%{text}<br>least %{x:.1f} µs, measured %{y:.1f} µs<extra></extra>",
        ))  # fmt: skip
    ticks = {"type": "log", "tickvals": [k * 10**e for e in range(7) for k in (1, 2, 5)]}
    return dressed(
        traces, title, {**ticks, "title": "least time, microseconds"},
        {**ticks, "title": "measured, microseconds"}, 380,
    )  # fmt: skip


def _join(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First channel of each column and the largest value of the channels it joins."""
    channels = values.shape[1]
    if channels <= _MOST:
        return np.arange(channels), values
    starts = np.unique(np.linspace(0, channels, _MOST, endpoint=False).astype(int))
    return starts, np.maximum.reduceat(values, starts, axis=1)


def dressed(
    traces: Sequence[Any], title: str, x: Mapping[str, Any], y: Mapping[str, Any], height: int = 320,
    **layout: Any,
) -> go.Figure:  # fmt: skip
    """Return a figure in the house's plain dress; transparent, so that light and dark pages both suit it.

    Made in one call: every later change of a plotly figure costs milliseconds.
    """
    import plotly.graph_objects as go

    lines = textwrap.wrap(title, _LINE)  # plotly folds nothing, and a phone has room for so many
    names = sum("name" in trace and trace.get("showlegend", True) for trace in traces)
    # few names stand below the title; more, in rows on a phone, have room below the axis
    below = 19 * names if names > _FEW else 0
    top = 24 + 18 * len(lines) + 28 * (0 < names <= _FEW)
    legend = {"y": 0, "yref": "container", "x": 0} if below else {"y": 1.02, "x": 1, "xanchor": "right"}
    plain = {"gridcolor": "rgba(127,135,144,0.25)", "zeroline": False}
    figure = {
        "title": {"text": "<br>".join(map(escape, lines)), "font": {"size": 14}, "x": 0.01,
                  "xref": "container", "y": 1, "yanchor": "top", "pad": {"t": 16}},
        "height": height + below, "margin": {"l": 72, "r": 16, "t": top, "b": 46 + below},
        "paper_bgcolor": CLEAR, "plot_bgcolor": CLEAR, "font": {"color": GREY, "size": 12},
        "legend": {"orientation": "h", "yanchor": "bottom", **legend},
        "hoverlabel": _LABEL, "modebar": {"bgcolor": CLEAR, "color": GREY, "activecolor": BLUE},
        "transition": {"duration": 0}, "autosize": True, "xaxis": {**plain, **_titled(x)},
        "yaxis": {**plain, **_titled(y, _APART)}, "template": {}, **layout,
    }  # fmt: skip
    # what is written here is valid; plotly's own check of it would be most of the time that a slider waits
    return go.Figure(list(traces), figure, _validate=False)


def scatter(**about: Any) -> dict[str, Any]:
    """Return a trace of points or lines, as plotly's dictionary."""
    return {"type": "scatter", **about}


def _titled(axis: Mapping[str, Any], standoff: int = 0) -> dict[str, Any]:
    apart = {"standoff": standoff} if standoff else {}
    return {**axis, "title": {"text": axis["title"], **apart}}
