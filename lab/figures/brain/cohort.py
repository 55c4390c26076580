"""What a study of the shared network found: every method with its interval, and a newcomer over minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import InputError
from lab.figures.brain.newcomer import SCORES, Mark, draw_curves
from lab.figures.plate import Plate, Provenance, Theme, axes, canvas, ink, shade
from lab.figures.tradeoff import ROW, STYLES


@dataclass(frozen=True)
class Gain:
    """What one method is above another on the same pictures: ``[mean, low, high]``."""

    label: str
    two_way: tuple[float, float, float]
    pixcorr: tuple[float, float, float]


def cohort_study(
    marks: Sequence[Mark], gains: Sequence[Gain], provenance: Provenance, theme: Theme = "light"
) -> Plate:
    """Draw methods below each other, below them their differences, then a newcomer's curves over minutes.

    Parameters
    ----------
    marks : sequence of Mark
        Those with ``minutes`` make up the curves, one for each label.
    gains : sequence of Gain
        Paired differences; there may be none.
    """
    fixed = [m for m in marks if m.minutes is None]
    moving = [m for m in marks if m.minutes is not None]
    if not fixed or not moving:
        raise InputError("the study's figure wants methods on the cohort and on the newcomer")
    names = list(dict.fromkeys(m.label for m in moving))
    heights = [0.7 + 0.27 * len(fixed), *([0.7 + 0.27 * len(gains)] if gains else []), 2.6 + ROW * len(names)]
    figure = canvas(11.5, sum(heights) + 0.3, theme)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    for column, (key, said) in enumerate(SCORES):
        upper = axes(figure, grid[0, column], theme=theme, grid="x")
        _forest(upper, [(m.label, getattr(m, key)) for m in fixed], column == 0, theme)
        upper.set(xlabel=f"{said}, cohort")
        if gains:
            middle = axes(figure, grid[1, column], theme=theme, grid="x")
            _forest(middle, [(g.label, getattr(g, key)) for g in gains], column == 0, theme)
            middle.axvline(0, color=ink(theme)[1], linewidth=1)
            middle.set(xlabel=f"difference in {said}, paired")
        draw_curves(axes(figure, grid[-1, column], theme=theme, grid="y"), moving, names, (key, said), theme)
    caption = (
        "Above: methods on the cohort's subjects through one decoder, one sample a picture, guidance "
        "chosen on left-out ones (of fewer subjects where a name says so: what those are above others is in "
        "the middle alone); then what one is above another on the same subjects and pictures; below: a "
        "subject that nothing was trained on, over minutes of scanning. Bars are 95 % intervals over test "
        "pictures. "
        f"{provenance.sentence()}"
    )
    said = "; ".join(
        f"{m.label}{'' if m.minutes is None else f' at {m.minutes:g} min'}: {m.two_way[0]:.3f}" for m in marks
    )
    return Plate(figure, caption, f"Feature two-way of methods. {said}.")


def _forest(
    ax: Any, rows: Sequence[tuple[str, tuple[float, float, float]]], named: bool, theme: Theme
) -> None:
    colour, marker, _ = STYLES[0]
    tone = shade(colour, theme)
    for place, (_, value) in enumerate(reversed(rows)):
        ax.plot(value[1:], [place] * 2, color=tone, linewidth=1.4)
        ax.plot(value[0], place, marker, color=tone, markersize=6)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_yticks(range(len(rows)), [label if named else "" for label, _ in reversed(rows)])
