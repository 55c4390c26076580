"""Layers by a statistic: sorted rows, and the top of them as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.errors import InputError
from lab.figures.distributions import shorten
from lab.figures.plate import BLUE, ORANGE, Plate, Provenance, Theme, axes, canvas, ink, shade


def sorted_layers(rows: Sequence[Mapping[str, Any]], statistic: str) -> list[dict[str, Any]]:
    """Return rows by a statistic, largest first; rows without it come last, in their order.

    Raises
    ------
    InputError
        No row has such a column.
    """
    if not rows or statistic not in rows[0]:
        names = [k for k, v in (rows[0] if rows else {}).items() if isinstance(v, int | float)]
        raise InputError(f"no column {statistic!r} to sort by; there are {', '.join(names) or 'no rows'}")
    return [dict(r) for r in sorted(rows, key=lambda r: (r[statistic] is None, -(r[statistic] or 0.0)))]


def statistic_bars(
    rows: Sequence[Mapping[str, Any]],
    statistic: str,
    meaning: str,
    provenance: Provenance,
    most: int = 20,
    theme: Theme = "light",
) -> Plate:
    """Draw the layers with the largest values of a statistic.

    Parameters
    ----------
    rows : sequence of mapping
        With ``layer``, ``kind`` and the statistic; ``also``, if there, is the number of further layers that
        read the same tensor.
    statistic : str
    meaning : str
        What it is, in words.
    most : int
        Layers drawn.
    """
    ranked = [row for row in sorted_layers(rows, statistic) if row[statistic] is not None]
    if not ranked:
        raise InputError(f"no layer has the statistic {statistic!r}; nothing to draw")
    shown = ranked[:most]
    values = np.array([float(row[statistic]) for row in shown])
    text, quiet, *_ = ink(theme)
    figure = canvas(7.4, 0.22 * len(shown) + 1.2, theme)
    ax = axes(figure, theme=theme, grid="x")
    y = np.arange(len(shown))[::-1]
    convolution = np.array([row.get("kind") == "Conv2d" for row in shown])
    for which, colour, hatch, label in (
        (~convolution, shade(BLUE, theme), "", "Linear"),
        (convolution, ORANGE, "//", "Conv2d"),
    ):
        if which.any():
            ax.barh(
                y[which],
                values[which],
                height=0.7,
                color=colour,
                hatch=hatch,
                edgecolor=ink(theme)[3],
                label=label,
            )
    ax.set_yticks(y, [shorten(row["layer"], 44) for row in shown], fontsize=7.5)
    more = [int(row.get("also") or 0) for row in shown]
    for at, value, count in zip(y, values, more, strict=True):
        if count:
            ax.text(value, at, f" +{count}", va="center", fontsize=7.5, color=text)
    middle = float(np.median([float(row[statistic]) for row in ranked]))
    ax.axvline(middle, color=quiet, linestyle="--", linewidth=1, label=f"median layer, {middle:.3g}")
    ax.set(xlabel=statistic, ylim=(-0.7, len(shown) - 0.3))
    # with few bars of one length nothing inside the axes is free
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=text)
    said = f"{ranked[0]['layer']} has the largest, {values[0]:.4g}; the median layer {middle:.3g}"
    joined = " A number beside a bar: further layers that read the same tensor." if any(more) else ""
    caption = (
        f"{statistic}: {meaning}. The {len(shown)} largest of {len(ranked)} tensors; {said}.{joined} "
        f"{provenance.sentence()}"
    )
    return Plate(figure, caption, f"Bar chart of {len(shown)} layers by {statistic}: {said}.")
