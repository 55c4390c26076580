"""Reconstruction quality over the bytes of the decoder, with full precision and ridge as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import InputError
from lab.figures.plate import GREEN, ORANGE, Plate, Provenance, Theme, axes, canvas, ink, legend, shade
from lab.figures.tradeoff import BELOW, ROW, STYLES, Point, folded, rows_of


@dataclass(frozen=True)
class Level:
    """A baseline that has no size of its own: a horizontal line with its interval."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


def quality_over_bytes(
    points: Sequence[Point],
    levels: Sequence[Level],
    quality: str,
    provenance: Provenance,
    theme: Theme = "light",
    arithmetic: str = "simulated",
) -> Plate:
    """Draw a score over stored size; baselines are lines over the whole width.

    Parameters
    ----------
    points : sequence of Point
        A recipe each, with 95 % intervals; ``label`` names it in the legend.
    levels : sequence of Level
        Full precision first, then ridge.
    quality : str
        Label of the vertical axis; larger is better.
    arithmetic : str
        "simulated" or "native", for the caption.
    """
    if not points:
        raise InputError("no recipes to draw; give at least one")
    _, quiet, _, _ = ink(theme)
    names = [point.label for point in points] + [level.label for level in levels]
    figure = canvas(8.6, 4.2 + ROW * rows_of(names), theme)
    ax = axes(figure, theme=theme, grid="y")
    for level, (colour, line) in zip(levels, ((GREEN, "-"), (ORANGE, "--"), (quiet, ":")), strict=False):
        tone = shade(colour, theme)
        ax.axhline(
            level.value, color=tone, linestyle=line, linewidth=1.4, label=folded(level.label), zorder=1
        )
        if level.low is not None and level.high is not None:
            ax.axhspan(level.low, level.high, color=tone, alpha=0.1, linewidth=0, zorder=0)
    for index, point in enumerate(points):
        colour, marker, _ = STYLES[index % len(STYLES)]
        tone = shade(colour, theme)
        # more recipes than colours: the marker is drawn hollow the second time round
        face = tone if index < len(STYLES) else "none"
        if point.low is not None and point.high is not None:
            ax.plot([point.megabytes] * 2, [point.low, point.high], color=tone, linewidth=1.4, zorder=2)
        ax.plot(
            [point.megabytes],
            [point.value],
            marker,
            color=tone,
            markerfacecolor=face,
            markersize=7,
            linestyle="none",
            label=folded(point.label),
            zorder=3,
        )
    ax.set(xlabel="size of the decoder's tensors, MB", ylabel=quality)
    ax.margins(x=0.08, y=0.1)
    legend(ax, theme, **BELOW)
    caption = (
        f"{quality} over stored size of the decoder, {arithmetic} low-bit arithmetic. Bars and bands are "
        "95 % intervals over test pictures; the table also has the differences picture by picture. "
        f"{provenance.sentence()}"
    )
    said = [f"{p.label}: {p.megabytes:.2f} MB, {p.value:.3f}" for p in points]
    said += [f"{level.label}: {level.value:.3f}" for level in levels]
    return Plate(figure, caption, f"Scatter chart of {quality} over megabytes. {'; '.join(said)}.")
