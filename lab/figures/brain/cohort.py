"""What a study of the shared network found: every method with its interval, and a newcomer over minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import InputError
from lab.figures.plate import Plate, Provenance, Theme, axes, canvas, ink, legend, shade
from lab.figures.tradeoff import BELOW, ROW, STYLES


@dataclass(frozen=True)
class Mark:
    """One method's score: ``[mean, low, high]``; ``minutes`` of scanning for a newcomer's."""

    label: str
    two_way: tuple[float, float, float]
    pixcorr: tuple[float, float, float]
    minutes: float | None = None


@dataclass(frozen=True)
class Gain:
    """What one method is above another on the same pictures: ``[mean, low, high]``."""

    label: str
    two_way: tuple[float, float, float]
    pixcorr: tuple[float, float, float]


_SCORES = (("two_way", "feature two-way"), ("pixcorr", "PixCorr"))


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
    for column, (key, said) in enumerate(_SCORES):
        upper = axes(figure, grid[0, column], theme=theme, grid="x")
        _forest(upper, [(m.label, getattr(m, key)) for m in fixed], column == 0, theme)
        upper.set(xlabel=f"{said}, cohort")
        if gains:
            middle = axes(figure, grid[1, column], theme=theme, grid="x")
            _forest(middle, [(g.label, getattr(g, key)) for g in gains], column == 0, theme)
            middle.axvline(0, color=ink(theme)[1], linewidth=1)
            middle.set(xlabel=f"difference in {said}, paired")
        _curves(axes(figure, grid[-1, column], theme=theme, grid="y"), moving, names, (key, said), theme)
    caption = (
        "Above: methods on the cohort's subjects through one decoder, one sample a picture; then what one is "
        "above another on the same subjects and pictures; below: a subject that nothing was trained on, over "
        "minutes of scanning. Bars are 95 % intervals over test pictures. "
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
    ax.set_yticks(range(len(rows)), [label if named else "" for label, _ in reversed(rows)])


def _curves(
    ax: Any, moving: Sequence[Mark], names: Sequence[str], score: tuple[str, str], theme: Theme
) -> None:
    key, said = score
    for k, (name, (colour, marker, line)) in enumerate(zip(names, STYLES, strict=False)):
        mine = sorted((m for m in moving if m.label == name), key=lambda m: m.minutes or 0)
        # beside each other, so that no interval hides another
        beside = 1.03 ** (k - (len(names) - 1) / 2)
        tone, x = shade(colour, theme), [(m.minutes or 0) * beside for m in mine]
        values = [getattr(m, key) for m in mine]
        ax.plot(x, [v[0] for v in values], marker, color=tone, linestyle=line, label=name)
        for at, value in zip(x, values, strict=True):
            ax.plot([at] * 2, value[1:], color=tone, linewidth=1)
    ticks = sorted({m.minutes for m in moving if m.minutes is not None})
    ax.set(xscale="log", xlabel="minutes of scanning, newcomer", ylabel=said)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    if key == "two_way":
        legend(ax, theme, **(BELOW | {"bbox_to_anchor": (0, -0.28)}))
