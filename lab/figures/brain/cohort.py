"""What a study of the shared network found: every method with its interval, and a newcomer over minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import InputError
from lab.figures.plate import Plate, Provenance, Theme, axes, canvas, legend, shade
from lab.figures.tradeoff import BELOW, ROW, STYLES


@dataclass(frozen=True)
class Mark:
    """One method's score: ``[mean, low, high]``; ``minutes`` of scanning for a newcomer's."""

    label: str
    two_way: tuple[float, float, float]
    pixcorr: tuple[float, float, float]
    minutes: float | None = None


def cohort_study(marks: Sequence[Mark], provenance: Provenance, theme: Theme = "light") -> Plate:
    """Draw methods below each other, and below them a newcomer's curves over minutes.

    Parameters
    ----------
    marks : sequence of Mark
        Those with ``minutes`` make up the curves, one a label.
    """
    fixed = [m for m in marks if m.minutes is None]
    moving = [m for m in marks if m.minutes is not None]
    if not fixed or not moving:
        raise InputError("the study's figure wants methods on the cohort and on the newcomer")
    names = list(dict.fromkeys(m.label for m in moving))
    rows = 0.27 * len(fixed)
    figure = canvas(11.5, max(2.2, 0.7 + rows) + 3.2 + ROW * len(names), theme)
    ticks = sorted({m.minutes for m in moving if m.minutes is not None})
    for column, (key, said) in enumerate((("two_way", "feature two-way"), ("pixcorr", "PixCorr"))):
        upper = axes(figure, 2, 2, column + 1, theme=theme, grid="x")
        for place, mark in enumerate(reversed(fixed)):
            colour, marker, _ = STYLES[0]
            value, tone = getattr(mark, key), shade(colour, theme)
            upper.plot(value[1:], [place] * 2, color=tone, linewidth=1.4)
            upper.plot(value[0], place, marker, color=tone, markersize=6)
        labels = [m.label for m in reversed(fixed)] if column == 0 else [""] * len(fixed)
        upper.set_yticks(range(len(fixed)), labels)
        upper.set(xlabel=f"{said}, cohort")
        lower = axes(figure, 2, 2, column + 3, theme=theme, grid="y")
        for name, (colour, marker, line) in zip(names, STYLES, strict=False):
            mine = sorted((m for m in moving if m.label == name), key=lambda m: m.minutes or 0)
            tone, x = shade(colour, theme), [m.minutes for m in mine]
            values = [getattr(m, key) for m in mine]
            lower.plot(x, [v[0] for v in values], marker, color=tone, linestyle=line, label=name)
            for at, value in zip(x, values, strict=True):
                lower.plot([at] * 2, value[1:], color=tone, linewidth=1)
        lower.set(xscale="log", xlabel="minutes of scanning, newcomer", ylabel=said)
        lower.set_xticks(ticks, [f"{t:g}" for t in ticks])
        lower.minorticks_off()
        if column == 0:
            legend(lower, theme, **(BELOW | {"bbox_to_anchor": (0, -0.28)}))
    caption = (
        "Above: methods on the cohort's subjects through one decoder, one sample a picture; below: a subject "
        "that nothing was trained on, over minutes of scanning. Bars are 95 % intervals over test pictures. "
        f"{provenance.sentence()}"
    )
    said = "; ".join(
        f"{m.label}{'' if m.minutes is None else f' at {m.minutes:g} min'}: {m.two_way[0]:.3f}" for m in marks
    )
    return Plate(figure, caption, f"Feature two-way of methods. {said}.")
