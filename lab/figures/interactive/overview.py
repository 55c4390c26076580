"""All layers of a model in one figure, those that stand out marked: plotly, for a threshold slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.errors import InputError
from lab.figures.interactive.views import BLUE, GREY, VERMILION, dressed, scatter

if TYPE_CHECKING:
    import plotly.graph_objects as go


def standing_out(values: Sequence[float], times: float) -> tuple[np.ndarray, float]:
    """Return which values are at least so many times the median one (indices), and that threshold.

    Raises
    ------
    InputError
        There is no value.
    """
    found = np.asarray(values, float)
    if not found.size:
        raise InputError("no layer was seen; nothing to compare")
    threshold = times * float(np.median(found))
    return np.flatnonzero(found >= threshold) if threshold > 0 else np.flatnonzero(found), threshold


def layer_overview(
    names: Sequence[str],
    values: Sequence[float],
    times: float,
    meaning: str,
    title: str,
    beside: Mapping[str, Sequence[float]] | None = None,
) -> go.Figure:
    """Draw a statistic of every layer, in model order, and what is at least so many times the median layer's.

    Parameters
    ----------
    names : sequence of str
        Layers.
    values : sequence of float
        One a layer; not negative.
    times : float
        Threshold, in medians over layers.
    meaning : str
        Of the values, for the axis.
    beside : dict of str to sequence of float
        Further lines in the same unit, as percentiles over channels.
    """
    out, threshold = standing_out(values, times)
    x, y = np.arange(1, len(values) + 1), np.asarray(values, float)
    rest = np.setdiff1d(np.arange(len(y)), out)
    traces = [
        scatter(x=x, y=_positive(line), mode="lines", name=name, hoverinfo="skip",
                 line={"color": GREY, "width": 1.5, "dash": dash})
        for (name, line), dash in zip((beside or {}).items(), ("dot", "dash"), strict=False)
    ]  # fmt: skip
    for which, name, colour, sign in (
        (rest, meaning.partition(",")[0], BLUE, "circle"), (out, "stands out", VERMILION, "triangle-up"),
    ):  # fmt: skip
        if len(which):
            traces.append(scatter(
                x=x[which], y=_positive(y[which]), mode="markers", name=name,
                text=[escape(names[k]) for k in which],
                marker={"color": colour, "size": 9 if sign == "triangle-up" else 6, "symbol": sign},
                hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
            ))  # fmt: skip
    if threshold > 0:
        traces.append(scatter(
            x=[x[0], x[-1]], y=[threshold, threshold], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": VERMILION, "dash": "dash", "width": 1},
        ))  # fmt: skip
    drawn = np.concatenate([y, [threshold], *(np.asarray(line, float) for line in (beside or {}).values())])
    ends = np.log10(drawn[drawn > 0]) if (drawn > 0).any() else np.zeros(1)
    return dressed(
        traces, title, {"title": "layer, in the model's order", "range": [0, len(y) + 1]},
        {"type": "log", "title": f"{meaning}, log", "range": [ends.min() - 0.1, ends.max() + 0.1],
         "tickvals": [k * 10.0**e for e in range(-6, 7) for k in (1, 2, 5)]}, 340,
    )  # fmt: skip


def _positive(values: Any) -> list[float | None]:
    """Return values for a logarithmic axis: zero has no place there."""
    return [float(value) if value > 0 else None for value in values]
