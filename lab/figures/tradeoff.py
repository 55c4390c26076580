"""Quality against size, and errors over timesteps, for many recipes at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.errors import InputError
from lab.figures.plate import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Plate,
    Provenance,
    Theme,
    axes,
    canvas,
    ink,
    legend,
    shade,
)

#: Colour, marker and line of a method (of a recipe, if they are few), in order of appearance: told apart
#: without colour as well.
STYLES = (
    (BLUE, "o", "-"), (VERMILION, "s", "--"), (GREEN, "^", "-."), (ORANGE, "D", ":"),
    (PURPLE, "v", (0, (5, 1, 1, 1, 1, 1))), (SKY, "P", (0, (3, 1))), ("#777777", "X", (0, (1, 1))),
)  # fmt: skip
BELOW: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.13), "borderaxespad": 0}
"""Legend under the axes: names of recipes may be as long as the axes are wide."""
ROW = 0.22
"""Inches a line of the legend takes."""
_WIDE, _NARROW = 84, 30
"""Letters of a name's line: in a legend under the axes, and beside a point or a curve."""


def folded(name: str, most: int = _WIDE) -> str:
    r"""Return a recipe's name in lines, broken before its changes: on a single one it may leave no axes.

    Examples
    --------
    >>> folded("qvgen-w4a4+group=64+rank=16", 20)
    'qvgen-w4a4+group=64\n+rank=16'
    """
    first, *changes = name.split("+")
    lines = [first]
    for change in changes:
        if len(lines[-1]) + len(change) < most:
            lines[-1] += f"+{change}"
        else:
            lines.append(f"+{change}")
    return "\n".join(lines)


def rows_of(names: Sequence[str]) -> int:
    """Return how many lines names take below each other, folded."""
    return sum(1 + folded(name).count("\n") for name in names)


@dataclass(frozen=True)
class Point:
    """One recipe in the plane of size and quality."""

    label: str
    method: str
    megabytes: float
    value: float
    low: float | None = None
    high: float | None = None


def quality_against_bytes(
    points: Sequence[Point],
    quality: str,
    full_megabytes: float,
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw quality over size, with the front that no recipe beats in both.

    Parameters
    ----------
    points : sequence of Point
        With 95 % intervals.
    quality : str
        Label of the vertical axis; larger is better.
    full_megabytes : float
        Size of the full-precision model.
    """
    if not points:
        raise InputError("no recipes to draw")
    text, quiet, _, _ = ink(theme)
    few = len(points) <= len(STYLES)
    groups = [_group(p.label, p.method, few) for p in points]
    figure = canvas(8.6, 4.6 + few * ROW * (1 + rows_of(groups)), theme)
    ax = axes(figure, theme=theme, grid="y")
    for group, (colour, marker, _) in _styles(groups).items():
        mine = [p for p, its in zip(points, groups, strict=True) if its == group]
        tone = shade(colour, theme)
        for p in mine:
            if p.low is not None and p.high is not None:
                ax.plot([p.megabytes] * 2, [p.low, p.high], color=tone, linewidth=1.4)
        x, y = [p.megabytes for p in mine], [p.value for p in mine]
        ax.plot(x, y, marker, color=tone, markersize=6.5, linestyle="none", label=folded(group))
    front = pareto(points)
    ax.plot([p.megabytes for p in front], [p.value for p in front], color=quiet, linewidth=1, zorder=0)
    spread = max(p.value for p in points) - min(p.value for p in points)
    last = -np.inf
    for p in [] if few else front:
        if p.value - last > 0.045 * spread or last == -np.inf:  # labels of near neighbours would overlap
            said = folded(p.label, _NARROW)  # on one line it would leave the axes
            ax.annotate(
                said, (p.megabytes, p.value), xytext=(-7, 3), textcoords="offset points", fontsize=8,
                color=text, ha="right",
            )  # fmt: skip
            last = p.value + 0.045 * spread * said.count("\n")
    ax.set(xlabel="size of all tensors, MB", ylabel=quality)
    ax.margins(x=0.08 if few else 0.22, y=0.08)
    legend(ax, theme, **(BELOW if few else {"loc": "lower right", "ncols": 2}))
    caption = (
        f"{quality[0].upper()}{quality[1:]} over stored size; bars are 95 % intervals over seeds and "
        "pictures, the line joins recipes that no other beats in both. Full precision takes "
        f"{full_megabytes:.1f} MB. {provenance.sentence()}"
    )
    alt = "; ".join(f"{p.label}: {p.megabytes:.2f} MB, {p.value:.2f}" for p in points)
    return Plate(figure, caption, f"Scatter chart of {quality} over megabytes. {alt}.")


def pareto(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in size and quality, by size.

    Examples
    --------
    >>> made = [Point("a", "", 1, 5), Point("b", "", 2, 4), Point("c", "", 3, 9)]
    >>> [p.label for p in pareto(made)]
    ['a', 'c']
    """
    found: list[Point] = []
    for p in sorted(points, key=lambda p: (p.megabytes, -p.value)):
        if not found or p.value > found[-1].value:
            found.append(p)
    return found


def errors_over_time(
    curves: Mapping[str, tuple[str, Sequence[float], Sequence[float]]],
    what: str,
    provenance: Provenance,
    named: Sequence[str] = (),
    theme: Theme = "light",
) -> Plate:
    """Draw one line a recipe over timesteps, noise on the left as sampling goes.

    Parameters
    ----------
    curves : mapping of label to (method, timesteps, errors)
        Errors are relative powers, drawn on a logarithmic axis; zeros are left out.
    what : str
        Label of the vertical axis and first words of the caption.
    named : sequence of str
        Labels written at the end of their line. A few curves have a style and a line of the legend each.
    """
    if not curves:
        raise InputError("no curves to draw")
    text, few = ink(theme)[0], len(curves) <= len(STYLES)
    named = list(curves) if few else named
    figure = canvas(8.6, 4.2 + few * ROW * (1 + rows_of(list(curves))), theme)
    ax = axes(figure, theme=theme, grid="y")
    styles = _styles([_group(label, method, few) for label, (method, _, _) in curves.items()])
    seen: set[str] = set()
    heights: list[tuple[float, int]] = []
    for label, (method, times, errors) in curves.items():
        group = _group(label, method, few)
        colour, _, line = styles[group]
        x, y = np.asarray(times, float), np.asarray(errors, float)
        keep = np.isfinite(y) & (y > 0)
        if not keep.any():
            continue
        strong = label in named
        ax.plot(
            x[keep], y[keep], linestyle=line, color=shade(colour, theme), linewidth=2 if strong else 0.9,
            alpha=1 if strong else 0.6, label=None if group in seen else folded(group),
            marker="." if keep.sum() == 1 else "",
        )  # fmt: skip
        seen.add(group)
        at = float(np.log10(y[keep][-1]))
        lines = 1 + folded(label, _NARROW).count("\n")
        if strong and not few and all(abs(at - h) > 0.06 * (lines + n) for h, n in heights):
            ax.annotate(
                folded(label, _NARROW), (x[keep][-1], y[keep][-1]), xytext=(5, 0),
                textcoords="offset points", fontsize=8, color=text, va="center", annotation_clip=False,
            )  # fmt: skip
            heights.append((at, lines))
    ax.set(yscale="log", xlabel="timestep (sampling goes from left to right)", ylabel=what)
    ax.invert_xaxis()
    ax.margins(x=0.02)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high - 0.3 * abs(low - high) if named and not few else high)
    ax.set_xticks([t for t in ax.get_xticks() if min(low, high) <= t <= max(low, high) and t >= 0])
    if few:
        legend(ax, theme, **BELOW)
    else:
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top * (top / bottom) ** 0.15)  # room for the legend
        legend(ax, theme, loc="upper left", ncols=4)
    ends = "; ".join(f"{k}: {np.asarray(v[2], float)[-1]:.2e} at the end" for k, v in curves.items())
    return Plate(figure, f"{what}. {provenance.sentence()}", f"Line chart over timesteps. {ends}.")


def _group(label: str, method: str, few: bool) -> str:
    """Name what shares a style: the method, or the recipe itself."""
    return label if few else method.replace("_", "-")


def _styles(methods: Sequence[str]) -> dict[str, tuple]:
    names = list(dict.fromkeys(methods))
    return {name: STYLES[i % len(STYLES)] for i, name in enumerate(names)}
